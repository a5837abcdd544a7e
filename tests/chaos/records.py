"""What MLflow's database holds of the runs of steps, read by SQL: independent of the pipeline's and MLflow's code."""

from collections import defaultdict
from typing import Any

from sqlalchemy import NullPool, create_engine, text

ACTIVE_RUNS = """
    SELECT runs.run_uuid, tags.value AS step, runs.status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
    WHERE tags.key = 'vqvae2.step' AND runs.lifecycle_stage = 'active' ORDER BY runs.start_time
"""
FORGET = """
    UPDATE runs SET lifecycle_stage = 'deleted'
    WHERE run_uuid IN (SELECT run_uuid FROM tags WHERE key = 'vqvae2.step' AND value = :step)
"""
METRICS = "SELECT key, step FROM metrics WHERE run_uuid = :run ORDER BY key, step"
ALIASES = "SELECT name, alias, version FROM registered_model_aliases ORDER BY name, alias"


class Records:
    """Runs of steps, their figures, and the registry's aliases."""

    def __init__(self, database: str) -> None:
        """Connect to the database behind MLflow."""
        self._engine = create_engine(database, poolclass=NullPool)

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()

    def forget(self, step: str) -> None:
        """Delete the runs of `step`, as MLflow does."""
        with self._engine.begin() as connection:
            connection.execute(text(FORGET), {"step": step})

    def read(self) -> dict[str, Any]:
        """By step: its runs' statuses, and the update numbers of each figure; the registry's aliases."""
        with self._engine.connect() as connection:
            statuses, figures = defaultdict(list), {}
            for run, step, status in connection.execute(text(ACTIVE_RUNS)).all():
                statuses[step].append(status)
                by_key = defaultdict(list)
                for key, number in connection.execute(text(METRICS), {"run": run}).all():
                    by_key[key].append(number)
                figures[step] = dict(by_key)
            aliases = [tuple(row) for row in connection.execute(text(ALIASES)).all()]
        return {"statuses": dict(statuses), "figures": figures, "aliases": aliases}

    def problems(self, expected: dict[str, Any]) -> list[str]:
        """How the records differ from those of an undisturbed run."""
        found = self.read()
        problems = []
        for step, statuses in expected["statuses"].items():
            if found["statuses"].get(step) != statuses:
                problems.append(f"MLflow must hold runs {statuses} of {step}, got {found['statuses'].get(step)}")
            if found["figures"].get(step) != expected["figures"][step]:
                problems.append(_difference(step, found["figures"].get(step, {}), expected["figures"][step]))
        if found["aliases"] != expected["aliases"]:
            problems.append(f"aliases must be {expected['aliases']}, got {found['aliases']}")
        return problems


def _difference(step: str, found: dict[str, list[int]], expected: dict[str, list[int]]) -> str:
    keys = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    key = keys[0]
    return (
        f"{len(keys)} figures of {step} differ, for example {key}: logged at {found.get(key)}, "
        f"expected at {expected.get(key)}"
    )

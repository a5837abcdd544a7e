"""What the pipeline costs beside its steps: CPU seconds of a whole run less those of the bare steps, and where they go.

    python -m benchmarks.overhead [--write]

A run of the shrunk digits pipeline (every process counted) alternates with the same work in one plain process.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.processes import describe_machine, measure
from benchmarks.tiny import OVERRIDES

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "overhead.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and with --write keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/overhead.json")
    options = parser.parse_args(arguments)
    rounds = [_round() for _ in range(options.rounds)]
    kinds = sorted({kind for one in rounds for kind in one["pipeline"]})
    pipeline = {kind: statistics.median(one["pipeline"].get(kind, 0.0) for one in rounds) for kind in kinds}
    bare = {step: statistics.median(one["bare"][step] for one in rounds) for step in rounds[0]["bare"]}
    overhead = statistics.median(sum(one["pipeline"].values()) - sum(one["bare"].values()) for one in rounds)
    again = statistics.median(sum(one["again"].values()) for one in rounds)
    ranked = sorted(pipeline, key=lambda kind: -pipeline[kind])
    result = {
        "machine": describe_machine(), "rounds": options.rounds, "overhead_cpu_seconds": round(overhead, 1),
        "run_wall_seconds": round(statistics.median(one["wall"] for one in rounds), 1),
        "second_run_cpu_seconds": round(again, 1),
        "second_run_wall_seconds": round(statistics.median(one["again_wall"] for one in rounds), 1),
        "pipeline_by_process": {kind: round(pipeline[kind], 1) for kind in ranked},
        "bare_by_step": {step: round(spent, 1) for step, spent in bare.items()},
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if options.write:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _round() -> dict:
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        run = [
            sys.executable,
            "-m",
            "pipeline",
            "run",
            "digits",
            *(word for one in OVERRIDES for word in ("--set", one)),
        ]
        spent, wall = measure(run, Path(folder), environment)
        again, again_wall = measure(run, Path(folder), environment)
        measure([sys.executable, "-m", "benchmarks.bare", *OVERRIDES], Path(folder), environment)
        bare = json.loads((Path(folder) / "output.log").read_text().splitlines()[-1])
    print(
        f"round: {sum(spent.values()):.0f} CPU-s in all, {sum(bare.values()):.0f} bare, {os.getloadavg()[0]:.1f} load",
        file=sys.stderr,
    )
    return {"pipeline": spent, "bare": bare, "wall": wall, "again": again, "again_wall": again_wall}


if __name__ == "__main__":
    main()

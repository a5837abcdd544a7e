"""The table of all trials, printed, and kept as JSON and Markdown."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.processes import describe_machine
from tests.chaos.trials import Outcome

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "chaos.json"
HEADINGS = ("phase", "fault", "tried", "recovered", "seconds lost (median)")


def describe_outcome(outcome: Outcome) -> str:
    """One line."""
    trial = outcome.trial
    verdict = "recovered" if outcome.recovered else f"not tried: {outcome.not_tried}" if outcome.not_tried else "FAILED"
    codes = " ".join(map(str, outcome.exit_codes))
    line = f"{trial.seed:6} {trial.phase:20} {trial.fault:28} at {trial.point:6.1%}  {verdict:10}"
    line += f" {outcome.seconds_lost:6.1f} s lost  exit codes {codes}"
    return "\n       ".join([line, *outcome.problems])


def table_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """HEADINGS by phase and fault, and the sum."""
    rows = []
    kinds = dict.fromkeys((each.trial.phase, each.trial.fault) for each in sorted(outcomes, key=_order))
    for phase, fault in kinds:
        rows.append((phase, fault, *_sums([each for each in outcomes if _order(each) == (phase, fault)])))
    return [*rows, ("all", "", *_sums(outcomes))]


def _order(outcome: Outcome) -> tuple[str, str]:
    return (outcome.trial.phase, outcome.trial.fault)


def _sums(outcomes: Sequence[Outcome]) -> tuple[str, str, str]:
    tried = [each for each in outcomes if not each.not_tried]
    lost = statistics.median([each.seconds_lost for each in tried]) if tried else 0.0
    return str(len(tried)), str(sum(each.recovered for each in tried)), f"{lost:.1f}"


def markdown_table(outcomes: Sequence[Outcome]) -> str:
    """The table for docs/operations.md."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *table_rows(outcomes)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Print it."""
    print()
    print(markdown_table(outcomes))
    for reason in sorted({each.not_tried for each in outcomes if each.not_tried}):
        print(f"not tried: {reason}")


def write_results(outcomes: Sequence[Outcome], only: str) -> None:
    """Write RESULT; the table for docs/operations.md is what was printed."""
    result = {
        "machine": describe_machine(),
        "only": only,
        "trials": [asdict(each.trial) | _facts(each) for each in outcomes],
        "table": [dict(zip(HEADINGS, row, strict=True)) for row in table_rows(outcomes)],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _facts(outcome: Outcome) -> dict:
    facts = {"recovered": outcome.recovered, "seconds_lost": outcome.seconds_lost}
    facts |= {"exit_codes": list(outcome.exit_codes)}
    return facts | {
        name: list(value) if name == "problems" else value
        for name, value in (("problems", outcome.problems), ("not_tried", outcome.not_tried))
        if value
    }

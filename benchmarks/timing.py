"""Work timed alternately in one process, and how its figures are printed and stored."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.processes import describe_machine

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of a table."""

    name: str
    value: float
    unit: str = "x"
    least: float | None = None
    """Bar: the value must not be below this."""
    most: float | None = None
    """Bar: the value must not be above this."""
    seconds: Mapping[str, float] | None = None
    """Medians behind a ratio, by name of the work."""

    @property
    def bar(self) -> str:
        """The bar and whether it is met, in words; empty when there is none."""
        if self.least is not None:
            return f">= {self.least:g}: {'met' if self.value >= self.least else 'MISSED'}"
        return "" if self.most is None else f"<= {self.most:g}: {'met' if self.value <= self.most else 'MISSED'}"


def time_alternately(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each work; each round runs all of them once, after a warm-up round that is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for counted in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if counted:
                spent[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in spent.items()}


def report_figures(name: str, figures: list[Figure]) -> None:
    """Print the table and write benchmarks/results/<name>.json."""
    for figure in figures:
        print(f"{figure.name:72} {figure.value:10.3g} {figure.unit:10} {figure.bar}")
    result = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "figures": [asdict(figure) | {"bar": figure.bar} for figure in figures],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")

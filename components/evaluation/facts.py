"""Facts of a generator's evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts(Facts):
    """The headline figures, and all others by name."""

    judge_accuracy: float
    """Fraction of samples, as drawn, that the judge recognises as the requested class."""
    kept_accuracy: float
    """The same after rejection."""
    keep: float = 1.0
    """Fraction of the draws that rejection kept."""
    samples: int = 0
    """Samples in each accuracy."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Every other figure by name (components/evaluation/scores.py)."""

    def figures(self) -> dict[str, float]:
        """Every number by name; the measures under their own names."""
        figures = super().figures()
        return {name: figures[name] for name in figures if not name.startswith("measures_")} | dict(self.measures)

    def headline(self) -> str:
        """Accuracy before and after rejection."""
        drawn = f"{self.judge_accuracy:.1%} read as the class asked for"
        return f"{drawn}; {self.kept_accuracy:.1%} after keeping the best {self.keep:.0%}"

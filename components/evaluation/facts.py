"""Facts of a generator's evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts(Facts):
    """The headline figures, and all others by name."""

    judge_accuracy: float | None = None
    """Fraction of samples, as drawn, that the judge recognises as the requested class; None where there are no classes
    to tell apart."""
    kept_accuracy: float | None = None
    """The same after rejection."""
    keep: float = 1.0
    """Fraction of the draws that rejection kept."""
    samples: int = 0
    """Samples in each figure."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Every other figure by name (components/evaluation/scores.py)."""

    def figures(self) -> dict[str, float]:
        """Every number by name; the measures under their own names."""
        figures = super().figures()
        return {name: figures[name] for name in figures if not name.startswith("measures_")} | dict(self.measures)

    def headline(self) -> str:
        """Accuracy before and after rejection; without classes, what stands for quality and diversity."""
        if self.judge_accuracy is None or self.kept_accuracy is None:
            names = {"precision_before": "precision", "recall_before": "recall", "kernel_distance_before": "KID"}
            found = [f"{title} {self.measures[name]:.3f}" for name, title in names.items() if name in self.measures]
            return f"{', '.join(found)} of {self.samples:,} samples; no classes to recognise"
        drawn = f"{self.judge_accuracy:.1%} read as the class asked for"
        return f"{drawn}; {self.kept_accuracy:.1%} after keeping the best {self.keep:.0%}"

"""The figures of one generator, and those of real images in the same measures. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

Fidelity = Mapping[str, float]
"""How close two image sets are in the judge's feature space: value by name of measure (measures/registered.py)."""


@dataclass(frozen=True, kw_only=True)
class TradeOffPoint:
    """Samples after rejection: the smaller the share that it keeps, the better and the less diverse they are."""

    share: float
    """Fraction of the draws that was kept."""
    accuracy: float
    """Fraction of the kept samples that the judge recognises as the requested class."""
    fidelity: Fidelity
    """Between real images and the kept samples."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Fractions of one class's images that the judge recognises."""

    name: str
    before: float
    """Fraction of samples as drawn."""
    after: float
    """Fraction of samples that rejection kept."""
    real: float
    """Fraction of held-out real images; NaN where the class has none."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All figures of one generator."""

    samples: int
    """Samples in each accuracy."""
    compared: int
    """Images in each of the two sets that a measure of features compares."""
    curve: tuple[TradeOffPoint, ...]
    """From nothing rejected to the smallest share kept, each from the same draw."""
    keep: float
    """Share that rejection keeps in the headline figures."""
    tracked_per_share: tuple[str, ...]
    """Measures of features with a figure per share of the curve."""
    real_accuracy: float
    """The judge's accuracy on held-out real images."""
    reconstructed_accuracy: float
    """The judge's accuracy on their reconstructions: samples from the same decoder can hardly exceed it."""
    floor: Fidelity
    """Between real images and other real images."""
    generator_measures: Mapping[str, float]
    """Value of each measure of the whole generator, by name; measures that were left out are missing."""
    classes: tuple[ClassScore, ...]

    @property
    def before(self) -> TradeOffPoint:
        """Nothing rejected."""
        return self.curve[0]

    @property
    def after(self) -> TradeOffPoint:
        """The headline share kept."""
        return next(point for point in self.curve if point.share == self.keep)

    def figures(self) -> dict[str, float]:
        """Every figure by the name under which it is tracked."""
        figures = {
            "judge_accuracy/real": self.real_accuracy,
            "judge_accuracy/reconstructions": self.reconstructed_accuracy,
            "judge_accuracy/before": self.before.accuracy,
            "judge_accuracy/after": self.after.accuracy,
            **self.generator_measures,
        }
        for name, fidelity in (("before", self.before.fidelity), ("after", self.after.fidelity), ("real", self.floor)):
            figures |= {f"{measure}/{name}": value for measure, value in fidelity.items()}
        for point in self.curve:
            figures[f"kept_{point.share:g}/accuracy"] = point.accuracy
            figures |= {f"kept_{point.share:g}/{name}": point.fidelity[name] for name in self.tracked_per_share}
        return figures

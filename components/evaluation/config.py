"""Settings of a generator's evaluation."""

from dataclasses import dataclass

from components.config import require
from components.evaluation.features.config import FeaturesConfig

EVALUATION_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is drawn from the generator and compared with real images."""

    samples_per_class: int = 100
    """Samples per class in each figure, both before and after rejection."""
    keep: float = 0.25
    """Fraction of the draws that rejection keeps in the headline figures (section 3.3)."""
    temperature: float = 1.0
    """Divides the priors' logits; 1 samples from the fitted distribution."""
    shares: tuple[float, ...] = (1.0, 0.5, 0.25)
    """Fractions of the draws that are kept along the trade-off curve; 1 and `keep` are always among them. The smallest
    decides how many samples are drawn."""
    neighbours: int = 3
    """k of precision and recall (Kynkaanniemi et al. 2019 use 3)."""
    cas_updates: int = 0
    """Updates of the classifier that the classification accuracy score fits to samples; 0 leaves the score out."""
    pictures: int = 10
    """Images per row in the report's pictures."""
    features: tuple[FeaturesConfig, ...] = ()
    """Your feature extractors, beside the judge's features (docs/evaluation.md)."""

    def __post_init__(self) -> None:
        for name in ("samples_per_class", "neighbours", "pictures"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], got {self.keep}")
        require(self.temperature > 0, f"temperature must be above 0, got {self.temperature}")
        outside = [share for share in self.shares if not 0 < share <= 1]
        require(not outside, f"shares must lie in (0, 1], got {outside}")
        names = [extractor.name for extractor in self.features]
        require(len(set(names)) == len(names), f"features must have different names, got {names}")
        require(self.cas_updates >= 0, f"cas_updates must not be negative, got {self.cas_updates}")

    @property
    def curve(self) -> tuple[float, ...]:
        """Shares at the points of the trade-off curve, largest first, 1 and `keep` among them."""
        return tuple(sorted({1.0, self.keep, *self.shares}, reverse=True))

"""Settings of a generator's evaluation."""

from dataclasses import dataclass

from components.config import require
from components.evaluation.features.config import FeaturesConfig

EVALUATION_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is drawn from the generator and compared with real images."""

    samples: int = 10_000
    """Samples in each figure, both before and after rejection; classes have the shares that they have in training."""
    real_images: int = 50_000
    """Largest number of training images that samples are compared with; as many others give the figures of real images
    (Heusel et al. 2017 recommend at least 10,000 for the Frechet distance)."""
    keep: float = 0.25
    """Fraction of the draws that rejection keeps in the headline figures (section 3.3)."""
    shares: tuple[float, ...] = (1.0, 0.5, 0.25)
    """Fractions of the draws that are kept along the trade-off curve; 1 and `keep` are always among them. The smallest
    decides how many samples are drawn."""
    features: tuple[FeaturesConfig, ...] = ()
    """Your own feature extractors, beside the judge's features: with the field's standard weights, figures compare with
    published ones (docs/evaluation.md)."""
    lpips: str | None = None
    """Exported program that gives the perceptual distance (Zhang et al. 2018) of two batches of images; None leaves the
    figure out."""
    neighbours: int = 3
    """k of precision and recall (Kynkaanniemi et al. 2019 use 3)."""
    manifold_images: int = 10_000
    """Largest sets in precision, recall, density and coverage, whose cost grows with the square of it."""
    cas_updates: int = 1000
    """Updates of each of the three classifiers of the classification accuracy score (fitted to real images, to
    reconstructions and to samples), fewer for a handful of images (docs/evaluation.md); 0 leaves the score out."""
    cas_batch_size: int = 64
    """Images per update of these classifiers."""
    pictures: int = 10
    """Images per row in the report's pictures."""

    def __post_init__(self) -> None:
        for name in ("samples", "real_images", "neighbours", "manifold_images", "cas_batch_size", "pictures"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], got {self.keep}")
        outside = [share for share in self.shares if not 0 < share <= 1]
        require(not outside, f"shares must lie in (0, 1], got {outside}")
        require(self.cas_updates >= 0, f"cas_updates must not be negative, got {self.cas_updates}")
        names = [each.name for each in self.features]
        require(len(set(names)) == len(names), f"features must have different names, got {names}")

    @property
    def curve(self) -> tuple[float, ...]:
        """Shares at the points of the trade-off curve, largest first, 1 and `keep` among them."""
        return tuple(sorted({1.0, self.keep, *self.shares}, reverse=True))

"""The figures of one generator, and those of real images in the same measures. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

CONFIDENCE = "95%"
"""Confidence of every interval."""
NORMAL_95 = 1.96
"""Standard deviations of a normal distribution on either side of its mean that hold 95% of it."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value with its interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    """Lower end of the 95% interval; None where the figure has no interval."""
    high: float | None = None
    refused: str = ""
    """Why there is no value."""


def share_figure(share: float, count: int) -> Figure:
    """A share of `count` images, with Wilson's score interval (Wilson 1927).

    The normal approximation's interval has no width where the share is 0 or 1; this one does.
    """
    scale = 1 + NORMAL_95**2 / count
    middle = (share + NORMAL_95**2 / (2 * count)) / scale
    margin = NORMAL_95 * math.sqrt(share * (1 - share) / count + (NORMAL_95 / (2 * count)) ** 2) / scale
    low, high = max(0.0, middle - margin), min(1.0, middle + margin)
    return Figure(value=share, low=min(low, share), high=max(high, share))  # rounding must not leave the share outside


Figures = Mapping[str, Figure]
"""By name of the measure."""


@dataclass(frozen=True, kw_only=True)
class FeatureScores:
    """How close sets of images are in the features of one extractor. All sets have `compared` images."""

    extractor: str
    """`judge`, or the name of a feature extractor in the config."""
    digest: str
    """SHA-256 of the extractor's weights."""
    preprocessing: str
    """How images become its input."""
    features: int
    """Features per image."""
    compared: int
    """Images of each set: samples, other real images, reconstructions."""
    reference: int
    """Training images that each set is compared with."""
    statistics: str = ""
    """File of mean and covariance that the Frechet distance is measured against; empty: the reference images."""
    curve: tuple[Figures, ...]
    """Samples, for each share of the trade-off curve."""
    floor: Figures
    """Other training images: the best that samples can reach."""
    ceiling: Figures
    """Reconstructions of these: the best that samples of this tokenizer can reach (the Frechet distance is the rFID of
    the field when the features are Inception's)."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """Fractions of one class's images that the judge recognises; None where there are none."""

    name: str
    before: float | None
    """Fraction of samples as drawn."""
    after: float | None
    """Fraction of samples that rejection kept."""
    real: float | None
    """Fraction of real images that were not trained on."""


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """How often the judge recognises the requested class; only where there are classes."""

    curve: tuple[Figure, ...]
    """Samples, for each share of the trade-off curve."""
    real: Figure
    """Real images that were not trained on."""
    reconstructions: Figure
    """Their reconstructions: samples from the same decoder can hardly exceed it."""
    classes: tuple[ClassScore, ...]


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How closely the tokenizer reproduces images that it was not fitted to."""

    images: int
    figures: Figures
    """psnr, ssim, squared_error and, with a program, lpips: means over images."""


@dataclass(frozen=True, kw_only=True)
class LevelLikelihood:
    """Nats per code of one level's prior (the paper's table 1)."""

    level: str
    train: float | None
    held_out: float
    """On the images that chose the weights."""
    test: float | None
    """On images that chose nothing; None without a test split."""


@dataclass(frozen=True, kw_only=True)
class Memorisation:
    """Whether samples are copies of training images."""

    queries: int
    """Samples whose nearest training image was sought."""
    searched: int
    """Training images: all of them."""
    copied_share: float
    """Fraction of samples nearer to a training image than 99% of the unseen images are: 1% is expected by chance."""
    ratio: float
    """Median distance of samples over that of unseen images."""


@dataclass(frozen=True, kw_only=True)
class ClassificationScore:
    """Accuracy on unseen real images of a classifier that was fitted to images of one kind (the paper's table 2)."""

    fitted_to: str
    """real images, reconstructions or samples."""
    images: int
    top_1: float
    top_5: float | None
    """None with five classes or fewer."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All figures of one generator."""

    samples: int
    """Samples in each figure of recognition."""
    shares: tuple[float, ...]
    """Fractions of the draws that are kept along the trade-off curve, largest first."""
    keep: float
    """Share that rejection keeps in the headline figures."""
    rejection: str
    """'' or why nothing was rejected."""
    split: str
    """The split of real images that were not trained on: test, or held_out where there is no test split."""
    unseen: int
    """Images of that split that were measured."""
    recognition: Recognition | None
    features: tuple[FeatureScores, ...]
    """The judge's features first."""
    reconstruction: Reconstruction
    likelihood: tuple[LevelLikelihood, ...]
    bits_per_dimension: float
    memorisation: Memorisation
    classification: tuple[ClassificationScore, ...]
    """Empty where the score was left out."""

    def point(self, share: float) -> int:
        """Number of a share in the curve."""
        return self.shares.index(share)

    def figures(self) -> dict[str, float]:
        """Every figure that has a value, by the name under which it is tracked."""
        figures: dict[str, float | None] = {}
        for scores in self.features:
            figures |= self._feature_figures(scores)
        if self.recognition is not None:
            figures |= self._recognition_figures(self.recognition)
        figures |= {name: figure.value for name, figure in self.reconstruction.figures.items()}
        figures["bits_per_dimension"] = self.bits_per_dimension
        for level in self.likelihood:
            for split in ("train", "held_out", "test"):
                figures[f"nats_per_code/{level.level}/{split}"] = getattr(level, split)
        figures |= {
            "memorisation/copied_share": self.memorisation.copied_share,
            "memorisation/ratio": self.memorisation.ratio,
        }
        for score in self.classification:
            source = score.fitted_to.replace(" ", "_")
            figures |= {f"classification_accuracy_score/{source}": score.top_1}
            figures |= {f"classification_accuracy_score/{source}_top_5": score.top_5}
        return {name: value for name, value in figures.items() if value is not None}

    def _recognition_figures(self, recognition: Recognition) -> dict[str, float | None]:
        by_share = {
            f"kept_{share:g}/accuracy": figure.value
            for share, figure in zip(self.shares, recognition.curve, strict=True)
        }
        return by_share | {
            "judge_accuracy/real": recognition.real.value,
            "judge_accuracy/reconstructions": recognition.reconstructions.value,
            "judge_accuracy/before": recognition.curve[0].value,
            "judge_accuracy/after": recognition.curve[self.point(self.keep)].value,
        }

    def _feature_figures(self, scores: FeatureScores) -> dict[str, float | None]:
        prefix = "" if scores is self.features[0] else f"{scores.extractor}/"  # the judge's names stand alone
        sets = {
            "before": scores.curve[0],
            "after": scores.curve[self.point(self.keep)],
            "real": scores.floor,
            "reconstructions": scores.ceiling,
        }
        figures = {
            f"{prefix}{name}/{part}": figure.value for part, each in sets.items() for name, figure in each.items()
        }
        for share, each in zip(self.shares, scores.curve, strict=True):
            figures |= {f"{prefix}kept_{share:g}/{name}": figure.value for name, figure in each.items()}
        return figures

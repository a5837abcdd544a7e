"""What measures compare and what they return. Shapes: n m images, f features, y classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from components.config import require


class Estimate(NamedTuple):
    """A figure and its 95% interval: value -+ 1.96 standard deviations of bootstrap resamples (intervals.py).

    The interval is about the images that happened to be drawn; it does not contain the bias of a measure at few images,
    which real images against real images show.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)  # a set is equal to itself only: tensors do not compare to one truth value
class FeatureSet:
    """One extractor's output for a set of images."""

    features: Tensor
    """float32 (n, f)."""
    probabilities: Tensor | None
    """float32 (n, y): softmax of the extractor's logits; None: the extractor gives none."""
    labels: Tensor
    """int64 (n,): class of each image; -1: none."""

    def __post_init__(self) -> None:
        shape = self.features.dim() == 2 and self.labels.shape == self.features.shape[:1]
        shapes = f"{tuple(self.features.shape)} and {tuple(self.labels.shape)}"
        require(shape, f"a feature set must hold features (n, f) and labels (n,), got {shapes}")
        rows = len(self) if self.probabilities is None else len(self.probabilities)
        require(rows == len(self), f"there must be probabilities of each of {len(self)} images, got {rows} rows")
        finite = bool(self.features.isfinite().all())
        require(finite, "features must be finite numbers, got NaN or infinity: check the extractor and its input range")

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """How two sets of images are compared."""

    neighbours: int = 3
    """k of precision, recall, density and coverage (Kynkaanniemi et al. 2019 use 3 for precision and recall)."""
    manifold_images: int = 10_000
    """Most images per set in the measures of pairwise distances: a larger set is represented by a subset drawn by
    `seed`, so that their cost does not grow with the set."""
    kernel_subsets: int = 100
    """Pairs of subsets over which the kernel distance is averaged (100 in torch-fidelity)."""
    kernel_subset_size: int = 1000
    """Images per subset of the kernel distance (1000 in torch-fidelity); the smaller set's size where it has fewer."""
    splits: int = 10
    """Parts over which the inception score is averaged (Salimans et al. 2016 use 10)."""
    bootstrap: int = 50
    """Resamples behind every interval."""
    seed: int = 0
    """Draws subsets and resamples."""

    def __post_init__(self) -> None:
        for name in ("neighbours", "kernel_subsets", "splits"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("kernel_subset_size", "bootstrap"):
            require(getattr(self, name) >= 2, f"{name} must be at least 2, got {getattr(self, name)}")
        enough = self.manifold_images > self.neighbours
        require(enough, f"manifold_images must exceed neighbours={self.neighbours}, got {self.manifold_images}")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a figure is called and how it is shown."""

    name: str
    """Name of its figures: lower case, words joined by underscores."""
    title: str
    """Heading in the report."""
    meaning: str
    """One sentence for the report: what it measures, and which values are good."""
    value_format: str
    """How a value is shown, for str.format: "{:.2f}", "{:.1%}"."""
    higher_is_better: bool

    def show(self, value: float) -> str:
        """`value` as text; a NaN is 'n/a'."""
        return "n/a" if math.isnan(value) else self.value_format.format(value)


def never_refused(real_images: int, other_images: int, features: int, settings: ComparisonSettings) -> str:
    """The refusal of a measure that is sound at any number of images."""
    return ""


@dataclass(frozen=True, kw_only=True)
class FeatureMeasure(Measure):
    """Compares two sets of images by their features: real images with samples, or with other real images."""

    compute: Callable[[FeatureSet, FeatureSet, ComparisonSettings], Estimate]
    """(real images, the other set, settings) -> estimate. Callers ask `refuses` first: where it gives a reason, the
    value means nothing or ValueError is raised."""
    refusal: Callable[[int, int, int, ComparisonSettings], str] = never_refused
    """(real images, other images, features, settings) -> why these numbers give no sound figure; "": they do."""
    column: str
    """Heading in the table of the trade-off curve."""
    needs_probabilities: bool = False
    """Whether it reads the other set's probabilities."""
    needs_labels: bool = False
    """Whether it reads both sets' labels."""
    headline: bool = False
    """Whether its card is in the first row of the report."""
    tracked_per_share: bool = True
    """Whether there is a figure kept_<share>/<name> for each share of the trade-off curve."""
    charted: bool = False
    """Whether the chart draws it beside the accuracy; for fractions only."""

    def refuses(self, real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> str:
        """Why there is no sound figure for these sets, as one sentence; "" where `compute` gives one."""
        if self.needs_probabilities and others.probabilities is None:
            return f"{self.title} needs class probabilities, which this extractor does not give"
        if self.needs_labels and not (bool((real.labels >= 0).any()) and bool((others.labels >= 0).any())):
            return f"{self.title} needs labels, which these images do not have"
        return self.refusal(len(real), len(others), real.features.shape[1], settings)

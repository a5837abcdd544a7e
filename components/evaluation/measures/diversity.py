"""How different images of one class are from each other. Shapes: n images, f features, c images of one class."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from components.evaluation.measures.distances import squared_distance_rows
from components.evaluation.measures.intervals import estimate, resampled_means
from components.evaluation.measures.kinds import ComparisonSettings, Estimate, FeatureMeasure, FeatureSet
from components.evaluation.measures.neighbours import drawn_rows


class _Spread(NamedTuple):
    """A set's mean over classes of the mean distance between two images of the class."""

    value: float
    resamples: Tensor
    """float64 (b,): the same of bootstrap resamples."""


def mean_distances(points: Tensor) -> Tensor:
    """Mean Euclidean distance float64 (c,) of each of `points` (c, f), c >= 2, to the others."""
    sums = torch.cat([rows.sqrt().sum(dim=1) for rows in squared_distance_rows(points, points)])  # (c,)
    return sums / (len(points) - 1)


def estimate_within_class_diversity(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """Mean distance between two of the others of one class, divided by that between two real images of one class.

    Both are means over the classes, equally weighted, of which both sets hold at least 2 images; NaN without such a
    class, and where real images of a class are all equal. Sets of more than `manifold_images` are represented by a
    subset.
    """
    drawn = []
    for each in (real, others):
        rows = drawn_rows(len(each), settings)
        drawn.append((each.features[rows], each.labels[rows]))
    classes = sorted(_usable_classes(drawn[0][1]) & _usable_classes(drawn[1][1]))
    if not classes:
        return Estimate(math.nan, math.nan, math.nan)
    generator = torch.Generator().manual_seed(settings.seed)
    of_real, of_others = (_spread(*each, classes, settings.bootstrap, generator) for each in drawn)
    if of_real.value == 0:
        return Estimate(math.nan, math.nan, math.nan)
    return estimate(of_others.value / of_real.value, of_others.resamples / of_real.resamples)


def _usable_classes(labels: Tensor) -> set[int]:
    values, counts = labels[labels >= 0].unique(return_counts=True)
    return set(values[counts >= 2].tolist())


def _spread(
    features: Tensor, labels: Tensor, classes: list[int], resamples: int, generator: torch.Generator
) -> _Spread:
    values, moved = [], []
    for label in classes:
        means = mean_distances(features[labels == label])  # (c,)
        value = means.mean()
        values.append(value)
        # A pair has two images, so an image moves the mean over pairs by twice its own deviation (Hoeffding 1948).
        moved.append(value + 2 * (resampled_means(means, resamples, generator) - value))  # (b,)
    return _Spread(torch.stack(values).mean().item(), torch.stack(moved).mean(dim=0))


WITHIN_CLASS_DIVERSITY = FeatureMeasure(
    name="within_class_diversity",
    title="Diversity within classes",
    column="Diversity",
    meaning="Mean distance in feature space between two samples of one class, relative to two real images of one "
    "class. 1: as diverse as real images; lower: samples of a class resemble each other.",
    value_format="{:.2f}",
    higher_is_better=True,
    compute=estimate_within_class_diversity,
    needs_labels=True,
)

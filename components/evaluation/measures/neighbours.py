"""Whether images lie among others: improved precision and recall (Kynkaanniemi et al. 2019, equations 1 and 2), density
and coverage (Naeem et al. 2020, equations 5 and 6). Shapes: n m images, f features.
"""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from components.config import require
from components.evaluation.measures.distances import squared_distance_rows
from components.evaluation.measures.intervals import estimate_mean
from components.evaluation.measures.kinds import ComparisonSettings, Estimate, FeatureMeasure, FeatureSet

TIE = 1 + 1e-9
"""Factor by which squared radii are widened: the same distance, computed twice, differs by rounding, and a neighbour at
exactly a ball's radius belongs to it."""


class Memberships(NamedTuple):
    """Which images lie in which balls. A set's balls: around each image, up to its own k-th nearest neighbour in the
    set."""

    others_in_real: Tensor
    """bool (m,): whether each of the others lies in at least one ball of the real images."""
    real_in_others: Tensor
    """bool (n,): whether each real image lies in at least one ball of the others."""
    balls_per_other: Tensor
    """int64 (m,): balls of the real images in which each of the others lies."""
    real_covered: Tensor
    """bool (n,): whether each real image's ball holds at least one of the others."""


def squared_radii(members: Tensor, neighbours: int) -> Tensor:
    """Squared distance float64 (n,) of each of `members` (n, f) to its k-th nearest other one, ties included."""
    # Each member is its own nearest neighbour, at distance 0, hence k + 1.
    rows = squared_distance_rows(members, members)
    return torch.cat([chunk.kthvalue(neighbours + 1, dim=1).values for chunk in rows]) * TIE


def find_memberships(real: Tensor, others: Tensor, neighbours: int) -> Memberships:
    """Memberships of features (n, f) and (m, f); ValueError for sets of `neighbours` images or fewer."""
    reason = _too_few(min(len(real), len(others)), neighbours)
    require(not reason, reason)
    around_real, around_others = squared_radii(real, neighbours), squared_radii(others, neighbours)  # (n,), (m,)
    inside, balls = [], []
    real_in_others, covered = torch.zeros(2, len(real), dtype=torch.bool)  # (n,) each
    first = 0
    for chunk in squared_distance_rows(others, real):  # (rows, n)
        within = chunk <= around_real
        inside.append(within.any(dim=1))
        balls.append(within.sum(dim=1))
        covered |= within.any(dim=0)
        real_in_others |= (chunk <= around_others[first : first + len(chunk), None]).any(dim=0)
        first += len(chunk)
    return Memberships(torch.cat(inside), real_in_others, torch.cat(balls), covered)


# --- shared by the four measures --------------------------------------------------------------------------------------

_latest: "weakref.WeakKeyDictionary[FeatureSet, tuple[weakref.ref[FeatureSet], ComparisonSettings, Memberships]]"
_latest = weakref.WeakKeyDictionary()
"""The last memberships of each set of others: the four measures ask for the same ones, which take up to a minute."""


def _memberships(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Memberships:
    """Memberships of at most `manifold_images` of each set, drawn by the seed."""
    if others in _latest:
        of_real, of_settings, memberships = _latest[others]
        if of_real() is real and of_settings == settings:
            return memberships
    a, b = (each.features[drawn_rows(len(each), settings)] for each in (real, others))
    memberships = find_memberships(a, b, settings.neighbours)
    _latest[others] = weakref.ref(real), settings, memberships
    return memberships


def drawn_rows(images: int, settings: ComparisonSettings) -> Tensor:
    """Positions int64 of the images that represent a set: all, or `manifold_images` of them, drawn by the seed."""
    if images <= settings.manifold_images:
        return torch.arange(images)
    order = torch.randperm(images, generator=torch.Generator().manual_seed(settings.seed))
    return order[: settings.manifold_images].sort().values


def _refusal(real_images: int, other_images: int, features: int, settings: ComparisonSettings) -> str:
    return _too_few(min(real_images, other_images), settings.neighbours)


def _too_few(images: int, neighbours: int) -> str:
    enough = images > neighbours
    return "" if enough else f"each set must hold more than neighbours={neighbours} images, got {images}"


def estimate_precision(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """Fraction of the others in balls of the real images; the interval, as of all four, by images with fixed balls."""
    return estimate_mean(_memberships(real, others, settings).others_in_real, settings)


def estimate_recall(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """Fraction of the real images in balls of the others."""
    return estimate_mean(_memberships(real, others, settings).real_in_others, settings)


def estimate_density(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """Mean number of balls of the real images that hold one of the others, divided by k."""
    return estimate_mean(_memberships(real, others, settings).balls_per_other / settings.neighbours, settings)


def estimate_coverage(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """Fraction of the real images whose ball holds at least one of the others."""
    return estimate_mean(_memberships(real, others, settings).real_covered, settings)


PRECISION = FeatureMeasure(
    name="precision",
    title="Precision",
    column="Precision",
    meaning="Quality: fraction of samples that lie among the real images in feature space. Higher is better.",
    value_format="{:.1%}",
    higher_is_better=True,
    compute=estimate_precision,
    refusal=_refusal,
    tracked_per_share=False,
)
RECALL = FeatureMeasure(
    name="recall",
    title="Recall",
    column="Recall",
    meaning="Diversity: fraction of real images that lie among the samples in feature space. Higher is better.",
    value_format="{:.1%}",
    higher_is_better=True,
    compute=estimate_recall,
    refusal=_refusal,
    headline=True,
    charted=True,
)
DENSITY = FeatureMeasure(
    name="density",
    title="Density",
    column="Density",
    meaning="Quality: how many real images a sample is close to, relative to their number of neighbours; unlike "
    "precision it is not raised by single odd real images. Higher is better, about 1 for real images, can exceed 1.",
    value_format="{:.2f}",
    higher_is_better=True,
    compute=estimate_density,
    refusal=_refusal,
    tracked_per_share=False,
)
COVERAGE = FeatureMeasure(
    name="coverage",
    title="Coverage",
    column="Coverage",
    meaning="Diversity: fraction of real images that have a sample close to them; unlike recall it is not raised by "
    "single odd samples. Higher is better.",
    value_format="{:.1%}",
    higher_is_better=True,
    compute=estimate_coverage,
    refusal=_refusal,
    tracked_per_share=False,
)

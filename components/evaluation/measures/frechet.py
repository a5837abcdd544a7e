"""The Frechet distance of two sets of images (Heusel et al. 2017). Shapes: n images, f features."""

from typing import NamedTuple

import torch
from torch import Tensor

from components.config import require
from components.evaluation.measures.intervals import estimate, resampled_means
from components.evaluation.measures.kinds import ComparisonSettings, Estimate, FeatureMeasure, FeatureSet
from components.evaluation.measures.moments import ROWS_PER_PRODUCT, Moments

IMAGES_PER_FEATURE = 2
"""Images per feature below which no distance is given: covariances of so few images rank sets by their noise."""
SMALLEST_EIGENVALUE = 1e-10
"""Fraction of the largest eigenvalue below which a direction counts as constant in a set."""


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of the Gaussians with these moments.

    It is an FID only if the features are Inception's. It is biased upwards for small n: compare it at equal n only.
    """
    root = _powers(a.covariance).root  # (f, f)
    eigenvalues = torch.linalg.eigvalsh(root @ b.covariance @ root)  # (f,): those of S_a S_b, by a symmetric matrix
    return _distance(a, b, eigenvalues.clamp(min=0).sqrt().sum())


def _distance(a: Moments, b: Moments, trace_of_root: Tensor) -> float:
    """The distance, given tr((S_a S_b)^(1/2)), ()."""
    traces = a.covariance.trace() + b.covariance.trace() - 2 * trace_of_root
    distance = (a.mean - b.mean).square().sum() + traces
    return max(0.0, distance.item())  # by rounding, equal sets may give slightly less than 0


def frechet_refusal(
    real_images: int | None, other_images: int | None, features: int, settings: ComparisonSettings | None = None
) -> str:
    """Why no Frechet distance is given for so few images per feature; "": there are enough.

    None images: unknown (a file of reference statistics), taken to be enough.
    """
    least = IMAGES_PER_FEATURE * features
    fewest = min(images for images in (real_images, other_images, least) if images is not None)
    if fewest >= least:
        return ""
    return (
        f"the Fréchet distance of {features} features needs at least {least} images in each set, got {fewest}: "
        "with fewer it ranks sets by noise; compare the kernel distance"
    )


# --- its interval -----------------------------------------------------------------------------------------------------


class _Powers(NamedTuple):
    """Powers 1/2 and -1/2 of a covariance, (f, f) each; constant directions have none and are left at 0."""

    root: Tensor
    inverse_root: Tensor


def _powers(covariance: Tensor) -> _Powers:
    values, vectors = torch.linalg.eigh(covariance)  # (f,), (f, f)
    roots = values.clamp(min=0).sqrt()  # (f,)
    varies = values > SMALLEST_EIGENVALUE * values[-1]
    inverses = torch.where(varies, 1 / roots.clamp(min=torch.finfo(roots.dtype).tiny), 0.0)
    return _Powers((vectors * roots) @ vectors.T, (vectors * inverses) @ vectors.T)


def estimate_frechet(real: FeatureSet | Moments, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """The Frechet distance of two sets and its interval; of Moments (reference statistics) only the others are drawn.

    The resamples are of its linear part in each image's weight: with the optimal map T = A^-1/2 (A^1/2 B A^1/2)^1/2
    A^-1/2 from N(0, A) to N(0, B), an image x of set a moves the distance by g(x) = 2 (mu_a - mu_b).(x - mu_a) +
    (x - mu_a)' (I - T) (x - mu_a) less its mean (I - T is the derivative of the squared Bures-Wasserstein distance by
    A: Bhatia et al. 2019). Resampling images or groups of images would cost an eigendecomposition per resample, and
    widen the interval several times where images per feature are few: repeated images make a covariance look narrower.
    """
    a, b = real if isinstance(real, Moments) else Moments.of(real.features), Moments.of(others.features)
    require(len(a.mean) == len(b.mean), f"both sets must have as many features, got {len(a.mean)} and {len(b.mean)}")
    reason = frechet_refusal(a.count, b.count, len(b.mean))
    require(not reason, reason)
    of_a = _powers(a.covariance)
    of_product = _powers(of_a.root @ b.covariance @ of_a.root)
    forth = of_a.inverse_root @ of_product.root @ of_a.inverse_root  # (f, f): the map from a to b
    back = of_a.root @ of_product.inverse_root @ of_a.root  # (f, f): from b to a
    generator = torch.Generator().manual_seed(settings.seed)
    moved = resampled_means(_influences(others.features, b, a, back), settings.bootstrap, generator)  # (b,)
    if isinstance(real, FeatureSet):
        moved += resampled_means(_influences(real.features, a, b, forth), settings.bootstrap, generator)
    return estimate(_distance(a, b, of_product.root.trace()), moved)


def _influences(features: Tensor, own: Moments, other: Moments, map_: Tensor) -> Tensor:
    """g float64 (n,) of a set's features (n, f), as in `estimate_frechet`; `map_` (f, f) leads to the other set."""
    form = torch.eye(len(map_), dtype=map_.dtype) - map_  # (f, f)
    shift = 2 * (own.mean - other.mean)  # (f,)
    parts = []
    for rows in features.split(ROWS_PER_PRODUCT):
        centred = rows.double() - own.mean  # (rows, f)
        parts.append(centred @ shift + ((centred @ form) * centred).sum(dim=1))  # (rows,)
    return torch.cat(parts)  # (n,)


FRECHET_DISTANCE = FeatureMeasure(
    name="frechet_distance",
    title="Fréchet distance",
    column="FD",
    meaning="Distance between the Gaussians of two sets of images in feature space; an FID only with the features of "
    "the Inception network. Lower is better.",
    value_format="{:.2f}",
    higher_is_better=False,
    compute=estimate_frechet,
    refusal=frechet_refusal,
    headline=True,
)

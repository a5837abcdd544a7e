"""The kernel distance, KID with Inception's features (Binkowski et al. 2018): unbiased at any number of images.

Shapes: n m images, f features, s images per subset.
"""

import math

import numpy as np
import torch
from torch import Tensor

from components.evaluation.measures.intervals import estimate_with
from components.evaluation.measures.kinds import ComparisonSettings, Estimate, FeatureMeasure, FeatureSet

SUBSET_SEED = 2020
"""Draws the subsets; torch-fidelity's, so that equal features give its figure."""


def polynomial_kernel(points: Tensor, members: Tensor) -> Tensor:
    """(x.y / f + 1)^3 of float64 (n, f) and (m, f): (n, m)."""
    return (points @ members.T / points.shape[1] + 1) ** 3


def squared_discrepancy(within_a: Tensor, within_b: Tensor, between: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, equation 3) of the kernel's values within each
    set, (n, n) and (m, m), and between them, (n, m)."""
    means = [(kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)) for kernel in (within_a, within_b)]
    return (means[0] + means[1] - 2 * between.mean()).item()


def kernel_distances(real: Tensor, others: Tensor, settings: ComparisonSettings) -> Tensor:
    """Squared discrepancy float64 of each pair of subsets of features (n, f) and (m, f): (kernel_subsets,)."""
    size = _subset_size(len(real), len(others), settings)
    rng = np.random.RandomState(SUBSET_SEED)
    distances = []
    for _ in range(settings.kernel_subsets):
        a, b = (  # drawn in torch-fidelity's order, whose first input are the samples
            each[torch.from_numpy(rng.choice(len(each), size, replace=False))].double() for each in (others, real)
        )  # (s, f) each
        distances.append(squared_discrepancy(*_kernels(a, b)))
    return torch.tensor(distances, dtype=torch.float64)


def _subset_size(real: int, others: int, settings: ComparisonSettings) -> int:
    return min(settings.kernel_subset_size, real, others)


def _kernels(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return polynomial_kernel(a, a), polynomial_kernel(b, b), polynomial_kernel(a, b)


def estimate_kernel_distance(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """The mean over pairs of subsets, and its interval.

    Subsets share images: their spread says nothing of the sets' own chance, and is 0 where a subset is the whole set.
    The interval's first part is a bootstrap of up to twice a subset's images per set, scaled to the sets' size (for
    equal distributions the distance settles faster than that: the interval is then too wide); the second is the chance
    of which subsets were drawn.
    """
    distances = kernel_distances(real.features, others.features, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = [
        each.features[torch.randperm(len(each), generator=generator)[: 2 * settings.kernel_subset_size]].double()
        for each in (real, others)
    ]
    resamples = _resampled_discrepancies(*_kernels(*drawn), settings.bootstrap, generator)  # (b,)
    scale = max(len(few) / len(each) for few, each in zip(drawn, (real, others), strict=True))
    by_subsets = distances.var(correction=0) / len(distances)  # ()
    return estimate_with(distances.mean().item(), math.sqrt(resamples.var() * scale + by_subsets))


def _resampled_discrepancies(
    within_a: Tensor, within_b: Tensor, between: Tensor, resamples: int, generator: torch.Generator
) -> Tensor:
    """The discrepancy (b,) of rows drawn with replacement; pairs of a row with itself or its copy are left out."""

    def counts(rows: int) -> Tensor:
        drawn = torch.randint(rows, (rows,), generator=generator)
        return torch.bincount(drawn, minlength=rows).double()  # (rows,): how often each row was drawn

    def mean_within(kernel: Tensor, weights: Tensor) -> Tensor:
        same = weights.square()  # (rows,)
        return (weights @ kernel @ weights - same @ kernel.diagonal()) / (weights.sum() ** 2 - same.sum())

    values = []
    for _ in range(resamples):
        a, b = counts(len(within_a)), counts(len(within_b))
        across = a @ between @ b / (a.sum() * b.sum())
        values.append(mean_within(within_a, a) + mean_within(within_b, b) - 2 * across)
    return torch.stack(values)


def _refusal(real_images: int, other_images: int, features: int, settings: ComparisonSettings) -> str:
    fewest = min(real_images, other_images)
    return "" if fewest >= 2 else f"the kernel distance needs at least 2 images in each set, got {fewest}"


KERNEL_DISTANCE = FeatureMeasure(
    name="kernel_distance",
    title="Kernel distance",
    column="KID",
    meaning="Squared difference of two sets of images under a polynomial kernel of their features, right on average at "
    "any number of images; a KID only with the features of the Inception network. Lower is better, 0 on average for "
    "equal distributions.",
    value_format="{:.4f}",
    higher_is_better=False,
    compute=estimate_kernel_distance,
    refusal=_refusal,
)

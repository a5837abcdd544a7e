"""The inception score (Salimans et al. 2016): whether each image is clearly of one class, and all classes occur.

Shapes: n images, y classes.
"""

import numpy as np
import torch
from torch import Tensor

from components.config import require
from components.evaluation.measures.intervals import estimate, resampled_means
from components.evaluation.measures.kinds import ComparisonSettings, Estimate, FeatureMeasure, FeatureSet

SHUFFLE_SEED = 2020
"""Shuffles the images before they are split; torch-fidelity's, so that equal probabilities give its figure."""


def divergences(probabilities: Tensor) -> Tensor:
    """KL(p(y|x) || p(y)) in nats of each row of (n, y), p(y) being the rows' mean: float64 (n,)."""
    rows = probabilities.double()
    mean = rows.mean(dim=0)  # (y,)
    return (torch.xlogy(rows, rows) - torch.xlogy(rows, mean)).sum(dim=1)


def estimate_inception_score(real: FeatureSet, others: FeatureSet, settings: ComparisonSettings) -> Estimate:
    """exp of the mean divergence, averaged over splits of the others; the real images are not looked at.

    Resamples are of each image's divergence from its split's p(y): the change of p(y) itself has no first-order effect.
    """
    assert others.probabilities is not None, "callers ask FeatureMeasure.refuses first"
    reason = _refusal(len(real), len(others), others.features.shape[1], settings)
    require(not reason, reason)
    count, splits = len(others), settings.splits
    shuffled = others.probabilities[torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(count))]  # (n, y)
    bounds = [split * count // splits for split in range(splits + 1)]
    parts = [divergences(shuffled[bounds[i] : bounds[i + 1]]) for i in range(splits)]  # (about n / splits,) each
    generator = torch.Generator().manual_seed(settings.seed)
    resamples = torch.stack(
        [resampled_means(part, settings.bootstrap, generator).exp() for part in parts]
    )  # (splits, b)
    value = torch.stack([part.mean().exp() for part in parts]).mean().item()
    return estimate(value, resamples.mean(dim=0))


def _refusal(real_images: int, other_images: int, features: int, settings: ComparisonSettings) -> str:
    enough = other_images >= settings.splits
    return "" if enough else f"the inception score needs at least splits={settings.splits} images, got {other_images}"


INCEPTION_SCORE = FeatureMeasure(
    name="inception_score",
    title="Inception score",
    column="IS",
    meaning="Whether samples are clearly of one class each and all classes occur, by the extractor's own classes; "
    "comparable with published scores only with the Inception network. Higher is better, at most the number of its "
    "classes; it does not compare with real images and does not see missing diversity inside a class.",
    value_format="{:.2f}",
    higher_is_better=True,
    compute=estimate_inception_score,
    refusal=_refusal,
    needs_probabilities=True,
)

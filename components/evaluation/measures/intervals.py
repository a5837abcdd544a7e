"""Intervals by the bootstrap (Efron 1979): how far a figure moves when the images are drawn again."""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.evaluation.measures.kinds import ComparisonSettings, Estimate
from components.evaluation.scores import NORMAL_95


def estimate(value: float, resamples: Tensor) -> Estimate:
    """`value` and its interval from the same figure of bootstrap resamples, float (b,)."""
    return estimate_with(value, resamples.double().std().item())


def estimate_with(value: float, deviation: float) -> Estimate:
    """`value` and its interval from its standard deviation."""
    margin = NORMAL_95 * deviation
    return Estimate(value, value - margin, value + margin)


def resampled_means(values: Tensor, resamples: int, generator: torch.Generator) -> Tensor:
    """Means float64 (b,) of `values` (n,) drawn n at a time with replacement, b = `resamples`."""
    values, count = values.double(), len(values)
    draws = (torch.randint(count, (count,), generator=generator) for _ in range(resamples))
    return torch.stack([values[rows].mean() for rows in draws])  # (b,)


def estimate_mean(values: Tensor | Sequence[float], settings: ComparisonSettings) -> Estimate:
    """The mean of one number per image (n,), n >= 1, and its interval."""
    values = torch.as_tensor(values, dtype=torch.float64)
    means = resampled_means(values, settings.bootstrap, torch.Generator().manual_seed(settings.seed))
    return estimate(values.mean().item(), means)

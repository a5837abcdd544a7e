"""Section 3.3: draw more than asked for, keep what the classifier is surest of. y classes, d draws a class."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from components.config import require
from components.generator.ancestral import Generator, Samples
from components.priors.choice import AS_FITTED, SamplingConfig
from components.priors.noise import splitmix64

LARGEST_SEED = 2**63 - 1
"""Seeds are 0 .. this: what an int64 holds."""


def sample_seeds(seed: int, label: int, count: int) -> Tensor:
    """Seeds int64 (count,) of the samples 0 .. count - 1 of class `label`: mix(mix(mix(seed) + label) + index).

    A sample's seed depends on (seed, class, index) alone, so a longer draw begins with the shorter one.
    """
    require(0 <= seed <= LARGEST_SEED, f"seed must lie in 0 .. 2^63 - 1, got {seed}")
    return splitmix64(splitmix64(splitmix64(torch.tensor([seed])) + label) + torch.arange(count))


def draws_needed(count: int, keep: float) -> int:
    """Draws of which the share `keep` is `count`, rounded up."""
    require(count >= 1, f"count must be at least 1, got {count}")
    require(0 < keep <= 1, f"keep must lie in (0, 1], got {keep}: 1 keeps every sample, 0.25 the best of each four")
    return math.ceil(count / keep - 1e-9)  # 7 / 0.07 is a hair above 100


def best_indices(probability: Tensor, count: int) -> Tensor:
    """Positions int64 (y, count), ascending, of the largest in each row of `probability` (y, d); ties: the first."""
    order = probability.sort(dim=1, descending=True, stable=True).indices
    return order[:, :count].sort(dim=1).values


def draw_samples(
    generator: Generator,
    *,
    classes: Sequence[int],
    count: int,
    seed: int,
    choice: SamplingConfig = AS_FITTED,
    batch: int = 64,
) -> Samples:
    """`count` samples a class, nothing rejected, class by class in the given order."""
    check_classes(classes, len(generator.classes))
    labels = torch.tensor(list(classes)).repeat_interleave(count)
    seeds = torch.cat([sample_seeds(seed, label, count) for label in classes])
    return generator.sample(labels, seeds, choice=choice, batch=batch)


def generate_samples(
    generator: Generator,
    *,
    classes: Sequence[int],
    count: int,
    seed: int,
    choice: SamplingConfig = AS_FITTED,
    keep: float = 1.0,
    batch: int = 64,
) -> Samples:
    """`count` samples a class: of ceil(count / keep) draws those with the highest probability of their own class.

    They come class by class, in the order they were drawn. The same arguments give the same samples.
    Raises ValueError for unknown or repeated classes and for a count or keep out of range.
    """
    draws = draws_needed(count, keep)
    samples = draw_samples(generator, classes=classes, count=draws, seed=seed, choice=choice, batch=batch)
    kept = best_indices(samples.probability.view(len(classes), draws), count)
    return samples.take((kept + torch.arange(len(classes), device=kept.device)[:, None] * draws).flatten())


def check_classes(classes: Sequence[int], known: int) -> None:
    """Raise ValueError unless `classes` are distinct class numbers in 0 .. known - 1, at least one."""
    require(len(classes) > 0, f"classes must name at least one of 0 .. {known - 1}, got none")
    bad = [label for label in classes if not 0 <= label < known]
    require(not bad, f"classes must lie in 0 .. {known - 1}, got {bad}")
    require(len(set(classes)) == len(classes), f"classes must differ, got {list(classes)}: raise count instead")

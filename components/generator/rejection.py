"""Section 3.3: draw more samples than needed, and keep those that the classifier recognises best.

Shapes: y classes, d draws per class, n samples, h w sides of a code map.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from components.config import require
from components.generator.ancestral import Generator
from components.generator.samples import DrawReport, Samples, no_report
from components.priors.config import AS_FITTED, SamplingConfig
from components.priors.noise import splitmix64

LARGEST_SEED = 2**63 - 1
"""Seeds are 0 .. this: what an int64 holds."""
ROUNDING_ERROR = 1e-9
"""Subtracted before rounding up: 7 / 0.07 is slightly above 100 in float64, although 100 draws suffice."""


def sample_seeds(seed: int, label: int, count: int) -> Tensor:
    """Seeds int64 (count,) of the samples 0 .. count - 1 of class `label`: mix(mix(mix(seed) + label) + index).

    A sample's seed depends on (seed, class, index) alone, so a longer draw begins with the shorter one.
    """
    require(0 <= seed <= LARGEST_SEED, f"seed must lie in 0 .. 2^63 - 1, got {seed}")
    return splitmix64(splitmix64(splitmix64(torch.tensor([seed])) + label) + torch.arange(count))


def labels_and_seeds(classes: Sequence[int], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Labels and seeds, int64 (y * count,) each, of `count` samples per class, class by class in the given order."""
    labels = torch.tensor(list(classes)).repeat_interleave(count)  # (y * count,)
    return labels, torch.cat([sample_seeds(seed, label, count) for label in classes])


def draws_needed(count: int, keep: float) -> int:
    """ceil(count / keep): the draws of which the fraction `keep` is `count`."""
    require(count >= 1, f"count must be at least 1, got {count}")
    require(0 < keep <= 1, f"keep must lie in (0, 1], got {keep}: 1 keeps every sample, 0.25 the best of each four")
    return math.ceil(count / keep - ROUNDING_ERROR)


def kept_share(generator: Generator, keep: float) -> float:
    """The fraction of the draws that is kept when `keep` is asked for: 1 where there is no classifier to reject by."""
    return keep if generator.classifier is not None else 1.0


def best_indices(probability: Tensor, count: int) -> Tensor:
    """Positions int64 (y, count), ascending, of the largest in each row of `probability` (y, d); of ties, the first."""
    order = probability.sort(dim=1, descending=True, stable=True).indices  # (y, d)
    return order[:, :count].sort(dim=1).values  # (y, count)


def draw_samples(
    generator: Generator,
    *,
    classes: Sequence[int],
    count: int,
    seed: int,
    sampling: SamplingConfig = AS_FITTED,
    batch: int = 64,
    given: Sequence[Tensor] = (),
    report: DrawReport = no_report,
) -> Samples:
    """`count` samples per class, nothing rejected, class by class in the given order.

    `given` holds code maps int64 (1, h, w) of the upper levels, top first, that all samples share. `report` is called
    after each chunk of `batch` draws. Raises ValueError for unknown or repeated classes.
    """
    check_classes(classes, len(generator.labels))
    labels, seeds = labels_and_seeds(classes, count, seed)
    shared = [level.expand(len(labels), -1, -1) for level in given]  # (n, h, w) each, in memory once
    return generator.sample(labels, seeds, sampling=sampling, batch=batch, given=shared, report=report)


def generate_samples(
    generator: Generator,
    *,
    classes: Sequence[int],
    count: int,
    seed: int,
    sampling: SamplingConfig = AS_FITTED,
    keep: float = 1.0,
    batch: int = 64,
    given: Sequence[Tensor] = (),
    report: DrawReport = no_report,
) -> Samples:
    """`count` samples per class: of ceil(count / keep) draws those with the highest probability of their own class.

    They come class by class, in the order in which they were drawn. The same arguments give the same samples. `given`
    and `report` are as in `draw_samples`; the report counts draws. Without classes the only class number is 0. A
    generator without a classifier rejects nothing: `keep` is ignored.
    Raises ValueError for unknown or repeated classes and for a count or keep out of range.
    """
    draws = draws_needed(count, kept_share(generator, keep))
    samples = draw_samples(
        generator,
        classes=classes,
        count=draws,
        seed=seed,
        sampling=sampling,
        batch=batch,
        given=given,
        report=report,
    )
    # Samples come class by class: row y of the view holds the draws of class y.
    best = best_indices(samples.probability.view(len(classes), draws), count)  # (y, count)
    offsets = torch.arange(len(classes))[:, None] * draws  # (y, 1): where each class begins
    return samples.take((best + offsets).flatten())


def check_classes(classes: Sequence[int], class_count: int) -> None:
    """Raise ValueError unless `classes` are distinct class numbers in 0 .. class_count - 1, at least one."""
    require(len(classes) > 0, f"classes must name at least one of 0 .. {class_count - 1}, got none")
    unknown = [label for label in classes if not 0 <= label < class_count]
    require(not unknown, f"classes must lie in 0 .. {class_count - 1}, got {unknown}")
    require(len(set(classes)) == len(classes), f"classes must differ, got {list(classes)}: raise count instead")

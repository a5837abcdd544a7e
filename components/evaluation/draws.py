"""How many samples of each class are drawn, and which of them each share of the trade-off curve keeps.

Shapes: y classes (1 where there are none), d draws in all, n samples in a figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from components.config import require
from components.evaluation.config import EvaluationConfig
from components.generator.rejection import best_indices, draws_needed, sample_seeds
from components.generator.samples import DrawRequest


@dataclass(frozen=True)
class DrawPlan:
    """The draws of an evaluation, class by class."""

    counts: tuple[int, ...]
    """Samples of each class in a figure; their sum is n."""
    draws: tuple[int, ...]
    """Draws of each class, enough for the smallest share."""

    @property
    def samples(self) -> int:
        """n."""
        return sum(self.counts)

    def request(self, seed: int) -> DrawRequest:
        """Labels and seeds of all draws: a longer draw of a class begins with the shorter one."""
        labels = torch.repeat_interleave(torch.arange(len(self.draws)), torch.tensor(self.draws))  # (d,)
        seeds = [sample_seeds(seed, label, count) for label, count in enumerate(self.draws) if count]
        return DrawRequest(labels, torch.cat(seeds))

    def kept(self, probability: Tensor, share: float) -> np.ndarray:
        """Positions int64 (n,) of the draws that rejection keeps at `share`, by the classifier's `probability` (d,).

        Of each class, the best of its first count / share draws: all shares keep equally many samples, and the draws of
        a larger share are among those of a smaller one.
        """
        positions, start = [], 0
        for count, draws in zip(self.counts, self.draws, strict=True):
            if count:
                candidates = probability[None, start : start + draws_needed(count, share)]  # (1, draws)
                positions.append(start + best_indices(candidates, count)[0].numpy())  # (count,)
            start += draws
        return np.concatenate(positions)


def plan_draws(class_sizes: Sequence[int], config: EvaluationConfig) -> DrawPlan:
    """Samples per class in proportion to `class_sizes`, the training images of each class ((1,) without classes)."""
    require(sum(class_sizes) > 0, f"there must be training images to compare samples with, got {list(class_sizes)}")
    counts = apportion(config.samples, class_sizes)
    smallest = min(config.curve)
    return DrawPlan(tuple(counts), tuple(draws_needed(count, smallest) if count else 0 for count in counts))


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """`total` divided into whole parts in proportion to `weights`, by largest remainders; ties go to the first."""
    exact = total * np.asarray(weights, np.float64) / sum(weights)  # (y,)
    counts = np.floor(exact).astype(np.int64)  # (y,)
    largest_remainders = np.argsort(counts - exact, kind="stable")  # (y,): most negative first
    counts[largest_remainders[: total - int(counts.sum())]] += 1
    return counts.tolist()


def evenly(positions: np.ndarray, count: int) -> np.ndarray:
    """`count` of `positions`, evenly spread, so that every class keeps its share; all where there are no more."""
    if count >= len(positions):
        return positions
    return positions[np.arange(count) * len(positions) // count]

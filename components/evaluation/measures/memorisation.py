"""Whether samples are copies of training images. Shapes: n m images, h w sides, c channels, f numbers per thumbnail."""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from components.config import require
from components.evaluation.measures.distances import squared_distance_rows
from components.images.tensors import to_images

THUMBNAIL_SIDE = 16
"""Largest side in pixels of a thumbnail: large enough to recognise a copy, small enough to average noise away."""
SMALLEST_DISTANCE = 1e-12
"""Least distance of held-out images, to divide by: it is 0 where they are in the training set too."""
COPIED_PERCENTILE = 0.01
"""Fraction of held-out images that are nearer to a training image than the distance below which a sample is a copy."""


def thumbnails(pixels: Tensor, side: int = THUMBNAIL_SIDE) -> Tensor:
    """Pixels uint8 (n, h, w, c) -> float (n, f), averaged to at most `side` x `side` pixels."""
    sides = (min(side, pixels.shape[1]), min(side, pixels.shape[2]))
    small = F.adaptive_avg_pool2d(to_images(pixels), sides)  # (n, c, height, width)
    return small.flatten(1)  # (n, f), f = c * height * width of the thumbnail


class NearestImages:
    """The nearest training image of each query, of all chunks so far; memory does not grow with the training set."""

    def __init__(self, queries: Tensor) -> None:
        """`queries` float (n, f): thumbnails of samples or of held-out images."""
        self.queries = queries
        self.distances = torch.full((len(queries),), torch.inf, dtype=torch.float64)
        """float64 (n,): Euclidean, infinite before the first chunk."""
        self.rows = torch.full((len(queries),), -1)
        """int64 (n,): position in the training set, -1 before the first chunk."""

    def update(self, chunk: Tensor, first_row: int) -> None:
        """Compare with training thumbnails (m, f), which are the training set's rows from `first_row` on."""
        if not len(chunk) or not len(self.queries):
            return
        winners = torch.cat([rows.argmin(dim=1) for rows in squared_distance_rows(self.queries, chunk)])  # (n,)
        # Products only choose the winner; its distance is of differences, which are exact where images are equal.
        distances = torch.cat(
            [
                (some.double() - chunk[rows].double()).norm(dim=1)
                for some, rows in zip(self.queries.split(1024), winners.split(1024), strict=True)
            ]
        )  # (n,)
        self._keep(distances, winners + first_row)

    def merge(self, other: Self) -> None:
        """Take over what another search of the same queries found in other chunks."""
        require(len(other.queries) == len(self.queries), "searches must have the same queries to be merged")
        self._keep(other.distances, other.rows)

    def _keep(self, distances: Tensor, rows: Tensor) -> None:
        """Equal distances keep the lower row, in whatever order chunks arrive."""
        nearer = (distances < self.distances) | ((distances == self.distances) & (rows < self.rows))  # (n,)
        self.distances = torch.where(nearer, distances, self.distances)
        self.rows = torch.where(nearer, rows, self.rows)


def copied_share(sample_distances: Tensor, held_out_distances: Tensor) -> float:
    """Fraction of samples nearer to a training image than the first percentile of held-out images, or equal to one.

    Both are distances to the nearest training image, (n,) and (m,). About 0.01 where samples are as new as held-out
    images; 1 where all are copies.
    """
    limit = torch.quantile(held_out_distances.double(), COPIED_PERCENTILE)  # ()
    copies = (sample_distances < limit) | (sample_distances == 0)  # (n,)
    return copies.double().mean().item()


def memorisation_ratio(sample_distances: Tensor, held_out_distances: Tensor) -> float:
    """Median distance from a sample to the nearest training image, divided by that of held-out images.

    About 1: the median sample is as new as a held-out image. Near 0: it is a copy.
    """
    usual = held_out_distances.double().median().clamp(min=SMALLEST_DISTANCE)  # ()
    return (sample_distances.double().median() / usual).item()

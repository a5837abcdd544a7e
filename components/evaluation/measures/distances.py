"""Distances between feature vectors, a chunk of rows at a time. Shapes: n m points, f features."""

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS_PER_CHUNK = 256
"""Rows of a distance matrix held at once."""


def distance_rows(points: Tensor, members: Tensor) -> Iterator[Tensor]:
    """Euclidean distances float64 from `points` (n, f) to `members` (m, f): chunks (at most ROWS_PER_CHUNK, m)."""
    members = members.double()  # (m, f)
    for rows in points.double().split(ROWS_PER_CHUNK):
        # cdist's shortcut by a matrix product rounds small distances away, on which these measures depend.
        yield torch.cdist(rows, members, compute_mode="donot_use_mm_for_euclid_dist")


def nearest_distance(points: Tensor, members: Tensor) -> Tensor:
    """Distance float64 (n,) from each of `points` (n, f) to the nearest of `members` (m, f)."""
    return torch.cat([rows.min(dim=1).values for rows in distance_rows(points, members)])  # (n,)

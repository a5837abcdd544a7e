"""Squared distances between feature vectors by matrix products, a chunk of rows at a time.

Products are many times faster than differences; what they round away is dealt with below. Shapes: n m points,
f features.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS_PER_CHUNK = 1024
"""Rows of a distance matrix held at once."""
ROUNDING = 1e-13
"""Squared distances below this fraction of the points' squared norms are rounding of equal points, in float64."""


def squared_distance_rows(points: Tensor, members: Tensor) -> Iterator[Tensor]:
    """Squared distances float64 from `points` (n, f) to `members` (m, f): chunks (at most ROWS_PER_CHUNK, m).

    Equal points are at distance exactly 0. |x - y|^2 = |x|^2 - 2 x.y + |y|^2, of points relative to the members' mean:
    the farther from 0, the more of a small distance is rounded away.
    """
    centre = members.double().mean(dim=0)  # (f,)
    members = members.double() - centre  # (m, f)
    norms = members.square().sum(dim=1)  # (m,)
    for chunk in points.split(ROWS_PER_CHUNK):
        rows = chunk.double() - centre  # (chunk, f)
        sums = rows.square().sum(dim=1, keepdim=True) + norms  # (chunk, m): |x|^2 + |y|^2
        squared = torch.addmm(sums, rows, members.T, alpha=-2)  # (chunk, m)
        yield squared.masked_fill_(squared <= ROUNDING * sums, 0)

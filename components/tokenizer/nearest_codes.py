"""Search for the nearest vector of a codebook (Razavi et al. 2019, equation 1).

Shapes: v vectors, d code width, k codebook size, b blocks per row.
"""

import torch
from torch import Tensor

DISTANCES_CPU, DISTANCES_DEVICE = 2**19, 2**26
"""Distances that a search holds at a time: on a CPU they fit into its cache, on an accelerator they keep it busy."""
DISTANCES_PER_BLOCK = 64
"""Distances per block when a CPU searches for the minimum of a row block by block."""


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Equation 1: for each of the vectors (v, d) the code of the nearest vector in (k, d), int64 (v).

    Among equally near vectors the first is taken. The time is that of one matrix product, 2 v k d operations; extra
    memory is v codes and at most DISTANCES_CPU (or DISTANCES_DEVICE) distances (at least one row of k),
    whatever v is. Autocast has no effect inside.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        # |x - e|^2 = |x|^2 + |e|^2 - 2 x.e, where |x|^2 is the same for all e. With e = mean + r that is, up to such
        # constants, |r|^2 + 2 mean.r - 2 x.r. Without this shift, a mean far from 0 would make the products so large
        # that rounding hides the differences.
        mean = codebook.mean(dim=0)  # (d)
        rest = codebook - mean  # (k, d)
        bias = rest.square().sum(dim=1) + 2 * (rest @ mean)  # (k)
        distances = DISTANCES_CPU if vectors.device.type == "cpu" else DISTANCES_DEVICE
        parts = vectors.split(max(1, distances // len(codebook)))  # each (rows, d), rows * k <= distances
        return torch.cat([_argmin_rows(torch.addmm(bias, part, rest.t(), alpha=-2)) for part in parts])  # (v)


def _argmin_rows(distances: Tensor) -> Tensor:
    """argmin of each row (v, k), the first of equals: int64 (v).

    On a CPU, amin is vectorized and argmin is not: amin finds the block with the minimum, argmin searches that block.
    """
    v, k = distances.shape
    if distances.device.type != "cpu" or k % DISTANCES_PER_BLOCK or k <= 2 * DISTANCES_PER_BLOCK:
        return distances.argmin(dim=1)
    blocks_per_row = k // DISTANCES_PER_BLOCK  # b
    blocks = distances.view(-1, DISTANCES_PER_BLOCK)  # (v b, 64)
    block = blocks.amin(dim=1).view(v, blocks_per_row).argmin(dim=1)  # (v): which block holds the row's minimum
    first_blocks = torch.arange(0, v * blocks_per_row, blocks_per_row)  # (v): index in `blocks` of each row's first
    chosen = blocks.index_select(0, first_blocks + block)  # (v, 64)
    return block * DISTANCES_PER_BLOCK + chosen.argmin(dim=1)  # (v)

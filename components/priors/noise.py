"""Gumbel noise that is a function of (seed, level, row, column, code) alone.

A counter is hashed instead of a generator advanced: any row of any image can be computed without those before it, with
the same hash on every device, and no two images share a stream. (torch's own CPU generator keeps only the low 32 bits
of its seed.)

Shapes: n images, w positions in a row, k codebook size.
"""

import torch
from torch import Tensor

NOISE_CPU, NOISE_DEVICE = 2**15, 2**26
"""Numbers hashed per chunk: few enough for a processor's cache, enough to keep an accelerator busy."""
_TWO_64 = 2**64
"""Subtracted from constants of 2**63 and above, which int64 holds as negative numbers with the same bits."""
_INCREMENT = 0x9E3779B97F4A7C15 - _TWO_64
"""2**64 divided by the golden ratio, as published."""
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - _TWO_64), (27, 0x94D049BB133111EB - _TWO_64), (31, 1))
"""Shift in bits and factor of each round of the finaliser, as published; the last round has no factor."""


def splitmix64(x: Tensor) -> Tensor:
    """splitmix64 (Steele et al. 2014): add its increment, then its finaliser; int64 of any shape, modulo 2**64.

    A bijection in which each bit of the input flips each bit of the output with probability near one half, so that
    neighbouring seeds give unrelated numbers.
    """
    x = x + _INCREMENT
    shifted = torch.empty_like(x)  # one buffer for all rounds
    for bits, factor in _ROUNDS:
        torch.bitwise_right_shift(x, bits, out=shifted)
        x.bitwise_xor_(shifted.bitwise_and_(2 ** (64 - bits) - 1)).mul_(factor)  # mask: torch shifts in sign bits
    return x


def gumbel_noise(seeds: Tensor, *, level: int, row: int | Tensor, width: int, codebook_size: int) -> Tensor:
    """Standard Gumbel noise, float64 (n, w, k), for one row of one level's map; `seeds` int64 (n,), one per image."""
    keys = splitmix64(splitmix64(splitmix64(seeds) + level) + row)  # n
    counter = splitmix64(torch.arange(width * codebook_size, device=seeds.device))  # w*k
    noise = torch.empty(len(keys), len(counter), dtype=torch.float64, device=seeds.device)  # n w*k
    images = max(1, (NOISE_CPU if seeds.device.type == "cpu" else NOISE_DEVICE) // len(counter))
    for key_chunk, noise_chunk in zip(keys.split(images), noise.split(images), strict=True):
        bits = splitmix64(key_chunk[:, None] + counter)  # images w*k
        bits.bitwise_right_shift_(12).bitwise_and_(2**52 - 1)  # the upper 52 bits: as many as float64 stores
        # (bits + 0.5) / 2**52 lies strictly between 0 and 1 and is exact, so both logarithms are finite.
        noise_chunk.copy_(bits).add_(0.5).mul_(2.0**-52).log_().neg_().log_().neg_()
    return noise.view(-1, width, codebook_size)

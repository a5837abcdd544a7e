"""Gumbel noise that is a function of (seed, level, row, column, code) alone.

A counter is hashed instead of a generator advanced: any row of any image can be had without those before it, the same
on every device, and no two images share a stream. (torch's own CPU generator keeps only the low 32 bits of its seed.)

Shapes: n images, w positions in a row, k codebook size.
"""

import torch
from torch import Tensor

NOISE_CPU, NOISE_DEVICE = 2**15, 2**26
"""Numbers hashed at a time: few enough for a processor's cache, enough to keep an accelerator busy."""
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))


def splitmix64(x: Tensor) -> Tensor:
    """splitmix64 (Steele et al. 2014): add its increment, then its finaliser; int64 of any shape, modulo 2**64.

    A bijection in which each bit of the input flips each bit of the output with probability near one half, so that
    neighbouring seeds have nothing in common.
    """
    x = x + _INCREMENT
    shifted = torch.empty_like(x)
    for bits, factor in _ROUNDS:
        torch.bitwise_right_shift(x, bits, out=shifted)
        x.bitwise_xor_(shifted.bitwise_and_(2 ** (64 - bits) - 1)).mul_(factor)  # torch's own shift is arithmetic
    return x


def gumbel_noise(seeds: Tensor, *, level: int, row: int | Tensor, width: int, codebook_size: int) -> Tensor:
    """Standard Gumbel noise, float64 (n, w, k), for one row of one level's map; `seeds` int64 (n,), one an image."""
    keys = splitmix64(splitmix64(splitmix64(seeds) + level) + row)
    counter = splitmix64(torch.arange(width * codebook_size, device=seeds.device))
    noise = torch.empty(len(keys), len(counter), dtype=torch.float64, device=seeds.device)
    images = max(1, (NOISE_CPU if seeds.device.type == "cpu" else NOISE_DEVICE) // len(counter))
    for some, part in zip(keys.split(images), noise.split(images), strict=True):
        bits = splitmix64(some[:, None] + counter).bitwise_right_shift_(12).bitwise_and_(2**52 - 1)
        # Strictly between 0 and 1, exactly representable.
        part.copy_(bits).add_(0.5).mul_(2.0**-52).log_().neg_().log_().neg_()
    return noise.view(-1, width, codebook_size)

"""Gumbel noise that is a function of (seed, level, row, column, code) alone.

A counter is hashed instead of a generator advanced: any row of any image can be had without those before it, the noise
of a whole batch is one vectorised expression, the same on every device, and no two images share a stream.
(torch's own CPU generator keeps only the low 32 bits of its seed.)

Shapes: n images, w positions in a row, k codebook size.
"""

import torch
from torch import Tensor

_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def mix(x: Tensor) -> Tensor:
    """splitmix64 (Steele et al. 2014): add its increment, then its finaliser; int64 of any shape, modulo 2**64.

    A bijection in which each bit of the input flips each bit of the output with probability near one half, so that
    neighbouring seeds have nothing in common.
    """
    x = x + _INCREMENT
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's own is arithmetic)."""
    return (x >> bits) & (2 ** (64 - bits) - 1)


def gumbel(seeds: Tensor, *, level: int, row: int, width: int, codebook_size: int) -> Tensor:
    """Standard Gumbel noise, float64 (n, w, k), for one row of one level's map; `seeds` int64 (n,), one an image."""
    key = mix(mix(mix(seeds) + level) + row)
    counter = mix(torch.arange(width * codebook_size, device=seeds.device))
    bits = mix(key[:, None] + counter).view(-1, width, codebook_size)
    uniform = (_shift(bits, 12).double() + 0.5) * 2.0**-52  # strictly between 0 and 1, exactly representable
    return -torch.log(-torch.log(uniform))

"""The order in which a fit draws samples. It depends on the seed and the number of samples drawn so far alone.

A resumed fit therefore draws what it would have drawn, with any number of workers.
"""

import functools

import numpy as np

from components.config import require

LARGEST_TABLE = 1 << 24
"""Rows up to which the order of an epoch is kept as a table, of eight bytes a row; that of more rows is computed."""
ROUNDS = 6
"""Of the Feistel network that computes it: four make a permutation look random to a statistical test, two more are
cheap."""


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Rows 0..n-1, int64 (n,), in the order in which epoch number `epoch` draws them; the same on every worker."""
    rows = np.random.default_rng([seed, epoch]).permutation(n)  # (n,)
    rows.flags.writeable = False  # the cache hands the same array to everyone
    return rows


def epoch_rows(positions: np.ndarray, seed: int, epoch: int, n: int) -> np.ndarray:
    """Rows, int64, that epoch number `epoch` draws at `positions`, int64 in 0..n-1: a random permutation of 0..n-1,
    computed for these positions alone.

    A Feistel network (Luby and Rackoff 1988) permutes the numbers below a power of four; where it leads to n or beyond
    it is applied again, until it does not (Black and Rogaway 2002, "cycle walking").
    """
    half = np.uint64((max(2, n - 1).bit_length() + 1) // 2)  # bits of each half
    mask = (np.uint64(1) << half) - np.uint64(1)
    keys = np.random.default_rng([seed, epoch]).integers(0, 2**64, ROUNDS, dtype=np.uint64)
    rows = positions.astype(np.uint64)
    outside = np.arange(len(rows))
    while len(outside):
        left, right = rows[outside] >> half, rows[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        rows[outside] = left << half | right
        outside = outside[rows[outside] >= n]
    return rows.astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Values uint64 whose bits all depend on all bits of `values`: the finalizer of SplitMix64 (Steele et al. 2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def _drawn(start: int, stop: int, seed: int, epoch: int, n: int) -> np.ndarray:
    """Rows that epoch number `epoch` draws at the positions from `start` to before `stop` (at most n)."""
    if n <= LARGEST_TABLE:
        return epoch_order(seed, epoch, n)[start:stop]
    return epoch_rows(np.arange(start, min(stop, n)), seed, epoch, n)


def batch_rows(start_sample: int, batch_size: int, seed: int, n: int) -> np.ndarray:
    """Rows int64 (batch_size,) of the global batch that begins after `start_sample` samples of the fit.

    A batch may span several epochs: no sample is dropped, and every batch is full.
    """
    require(n >= 1, f"a split must have at least one row to draw from, got {n}")
    require(
        batch_size >= 1 and start_sample >= 0,
        f"batch_size must be at least 1 and start_sample at least 0, got {batch_size} and {start_sample}",
    )
    drawn: list[np.ndarray] = []
    # Invariant: `drawn` holds the batch's samples from start_sample on, at most one slice per epoch.
    while (missing := batch_size - sum(map(len, drawn))) > 0:
        epoch, offset = divmod(start_sample + batch_size - missing, n)
        drawn.append(_drawn(offset, offset + missing, seed, epoch, n))
    return np.concatenate(drawn)


def worker_slice(positions: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The rows of a global batch for worker `rank` of `world`; each row goes to exactly one worker."""
    require(0 <= rank < world, f"rank must lie in 0..{world - 1}, got {rank}")
    require(
        len(positions) >= world,
        f"a batch must hold a sample for each of {world} workers, got {len(positions)}: "
        "raise batch_size or use fewer workers",
    )
    return positions[rank::world]  # strided: slices differ in length by one at most

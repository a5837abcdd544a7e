"""The order in which a fit draws samples. It depends on the seed and the number of samples drawn so far alone.

A resumed fit therefore draws what it would have drawn, with any number of workers.
"""

import functools

import numpy as np

from components.config import require


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Rows 0..n-1, int64 (n,), in the order in which epoch number `epoch` draws them; the same on every worker."""
    rows = np.random.default_rng([seed, epoch]).permutation(n)  # (n,)
    rows.flags.writeable = False  # the cache hands the same array to everyone
    return rows


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
        drawn.append(epoch_order(seed, epoch, n)[offset : offset + missing])
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

"""Mean and covariance of features, made in parts and merged. Shapes: n images, f features."""

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
import torch
from torch import Tensor

from components.config import require

ROWS_PER_PRODUCT = 1024
"""Rows held in float64 at once."""


@dataclass(frozen=True, eq=False)
class Moments:
    """All that the Frechet distance needs to know of a set of images."""

    count: int | None
    """Images; None: unknown, as in the field's files of reference statistics."""
    mean: Tensor
    """float64 (f,)."""
    covariance: Tensor
    """float64 (f, f), divided by count - 1; 0 of a single image."""

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Moments of features float (n, f), n >= 1: cost n * f^2, memory f^2."""
        count = len(features)
        require(count >= 1, "moments need at least 1 image, got none")
        mean = sum(rows.double().sum(dim=0) for rows in features.split(ROWS_PER_PRODUCT)) / count  # (f,)
        scatter = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64)  # (f, f)
        for rows in features.split(ROWS_PER_PRODUCT):
            centred = rows.double() - mean  # (rows, f)
            scatter.addmm_(centred.T, centred)
        return cls(count, mean, scatter / max(count - 1, 1))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together (Chan et al. 1979, equation 2.1)."""
        assert self.count is not None and other.count is not None, "moments of unknown count cannot be merged"
        count, shift = self.count + other.count, other.mean - self.mean  # (f,)
        scatter = self.covariance * (self.count - 1) + other.covariance * (other.count - 1)  # (f, f)
        scatter.addr_(shift, shift, alpha=self.count * other.count / count)
        return Moments(count, self.mean + shift * (other.count / count), scatter / (count - 1))

    def to_npz(self, file: str | Path | IO[bytes]) -> None:
        """Write `mu` and `sigma`, as pytorch-fid and torch-fidelity name them, and `count` where it is known."""
        count = {} if self.count is None else {"count": np.asarray(self.count)}
        np.savez(file, allow_pickle=False, mu=self.mean.numpy(), sigma=self.covariance.numpy(), **count)

    @classmethod
    def from_npz(cls, file: str | Path | IO[bytes]) -> Self:
        """Read `mu` (f,) and `sigma` (f, f), `count` where it is given; ValueError for anything else.

        Nothing is unpickled.
        """
        with np.load(file, allow_pickle=False) as arrays:
            names = set(arrays.files)
            require({"mu", "sigma"} <= names, f"reference statistics must hold mu and sigma, got {sorted(names)}")
            mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
            count = int(arrays["count"]) if "count" in names else None
        fits = mean.ndim == 1 and covariance.shape == (mean.size, mean.size)
        require(fits, f"mu must have shape (f,) and sigma (f, f), got {mean.shape} and {covariance.shape}")
        finite = bool(np.isfinite(mean).all() and np.isfinite(covariance).all())
        require(finite, "reference statistics must be finite numbers, got NaN or infinity")
        return cls(count, torch.from_numpy(mean), torch.from_numpy(covariance))

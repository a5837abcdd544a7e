"""Settings of the code dataset."""

from dataclasses import dataclass
from typing import Literal

from components.config import require

CODES_VERSION = 2
"""Raised whenever the same settings would now give another result: part of every fingerprint of this step."""


@dataclass(frozen=True, kw_only=True)
class CodesConfig:
    """How code maps are laid out on disk."""

    rows_per_shard: int = 4096
    """Images a Parquet file: the unit of work, of retry and of resume."""
    batch_size: int = 64
    """Images a forward pass of the encoder."""

    rows_per_wave: int = 1 << 20
    """Images planned and committed at a time: bounds the driver's memory. A multiple of rows_per_shard."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's convolutions. bfloat16 is faster on GPUs and moves what lies on the border between two codes."""

    def __post_init__(self) -> None:
        for name in ("rows_per_shard", "batch_size", "rows_per_wave"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(
            self.rows_per_wave % self.rows_per_shard == 0,
            f"rows_per_wave must be a multiple of rows_per_shard={self.rows_per_shard}, got {self.rows_per_wave}",
        )

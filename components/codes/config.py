"""Settings of the code dataset."""

from dataclasses import dataclass

from components.config import require

VERSION = 1
"""Raised whenever the same settings would now give another result: part of every fingerprint of this step."""


@dataclass(frozen=True, kw_only=True)
class CodesConfig:
    """How code maps are laid out on disk."""

    rows_a_shard: int = 4096
    """Images a Parquet file: the unit of work, of retry and of resume."""
    batch_size: int = 64
    """Images a forward pass of the encoder."""

    def __post_init__(self) -> None:
        for name in ("rows_a_shard", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")

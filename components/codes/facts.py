"""What the codes step tells about its dataset."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class CodesFacts(Facts):
    """Counts of a code dataset, the use of its codebooks, and what a prior has to know about its images."""

    rows: int
    usage: Mapping[str, float]
    """Fraction of each level's codebook that training rows use, by level."""
    classes: int
    dimensions: int
    """Numbers per image: height x width x channels."""
    shards: int = 0
    rejects: int = 0
    version: int = 1
    """Counts the commits that changed the dataset."""
    train_rows: int = 0
    held_out_rows: int = 0
    bytes: int = 0
    """Of all shards."""
    bytes_per_image: float = 0.0

    def headline(self) -> str:
        """Rows, bytes and codebooks."""
        usage = ", ".join(f"{level} {used:.0%}" for level, used in self.usage.items())
        size = f"{self.rows:,} rows in {self.shards:,} shards, {self.bytes_per_image:.0f} bytes per image"
        return f"{size}; codebooks in use: {usage}"

"""Facts of the codes step, and facts in the manifest of a code dataset."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class CodesFacts(Facts):
    """Counts of a code dataset, the use of its codebooks, and what a prior needs to know about the images."""

    rows: int
    usage: Mapping[str, float]
    """Fraction of each level's codebook that training rows use, by level."""
    classes: int
    dimensions: int
    """Numbers per image: height x width x channels."""
    shards: int = 0
    rejects: int = 0
    version: int = 1
    """Number of commits that changed the dataset, from 1."""
    train_rows: int = 0
    held_out_rows: int = 0
    test_rows: int = 0
    bytes: int = 0
    """Size of all shards."""
    bytes_per_image: float = 0.0
    float32_agreement: Mapping[str, float] = field(default_factory=dict)
    """As in DatasetFacts."""

    def headline(self) -> str:
        """Rows, bytes and codebooks."""
        usage = ", ".join(f"{level} {used:.0%}" for level, used in self.usage.items())
        size = f"{self.rows:,} rows in {self.shards:,} shards, {self.bytes_per_image:.0f} bytes per image"
        return f"{size}; codebooks in use: {usage}{describe_agreement(self.float32_agreement, '; ')}"


@dataclass(frozen=True, kw_only=True)
class DatasetFacts(Facts):
    """The facts in the manifest of a code dataset (docs/formats.md)."""

    version: int
    """Number of commits that changed the dataset, from 1."""
    rows: int
    shards: int
    splits: Mapping[str, int]
    """Rows of each split."""
    rejects: int
    levels: tuple[Mapping[str, Any], ...]
    """Fields of each CodeLevel, top first."""
    classes: tuple[str, ...]
    """Names of the classes; empty where the images have no labels."""
    image_size: int = 0
    """0 in a dataset that was committed before this field existed."""
    channels: int = 0
    tokenizer: str
    """Digest of the tokenizer's artifact."""
    tokenizer_model: str | None = None
    """models:/<name>/<version>; None when it was not registered."""
    tokenizer_run: str | None = None
    """MLflow run that fitted it; None: unknown."""
    preprocessing: str
    """Digest of everything that turns files into pixels."""
    snapshot: str
    """Digest of the snapshot."""
    snapshot_uri: str
    settings: Mapping[str, Any]
    """The section `codes`, under the names that its settings had at the commit."""
    float32_agreement: Mapping[str, float] = field(default_factory=dict)
    """Fraction of a sample's codes, by level, that are those of the float32 tokenizer that is served; empty where
    codes were computed in float32, and in a dataset that was committed before this field existed."""

    def headline(self) -> str:
        """Rows and shards."""
        return f"{self.rows:,} rows in {self.shards:,} shards"


def describe_agreement(agreement: Mapping[str, float], prefix: str = "") -> str:
    """`agreement` as text after `prefix`; nothing where it was not measured."""
    if not agreement:
        return ""
    levels = ", ".join(f"{level} {fraction:.1%}" for level, fraction in agreement.items())
    return f"{prefix}equal to the served float32 tokenizer's: {levels}"

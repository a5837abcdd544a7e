"""Settings of a residual classifier: one rejects samples (section 3.3), another judges them."""

from dataclasses import dataclass

from components.config import TrainingConfig, require

VERSION = 1
"""Raised whenever the same settings would now give another result: part of every fingerprint of this step."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """A small residual classifier and its fit."""

    hidden: int
    """Channels after the first convolution; doubled at each halving of the map."""
    stages: int = 3
    """Halvings of the map, one residual block each."""
    dropout: float = 0.0
    """Share of features dropped before the last layer while fitting."""
    seed: int = 0
    """Added to the pipeline's seed, so that two classifiers of one run start and shuffle differently."""
    training: TrainingConfig

    def __post_init__(self) -> None:
        for name in ("hidden", "stages"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(0 <= self.dropout < 1, f"dropout must lie in [0, 1), got {self.dropout}")

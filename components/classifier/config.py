"""Settings of a residual classifier: one rejects samples (section 3.3), another judges them."""

from dataclasses import dataclass
from typing import Literal

from components.config import TrainingConfig, require

CLASSIFIER_VERSION = 2
LARGEST_OFFSET = 9999
"""Of a classifier's seed: what is computed of the two seeds must fit into the 64 bits that torch takes."""

ClassifierTask = Literal["classes", "rotation"]
"""What a classifier tells apart: the classes of the images, or by how much an image is rotated."""


@dataclass(frozen=True, kw_only=True)
class ClassifierArchitecture:
    """What is needed to build a classifier: stored beside its weights."""

    hidden: int
    """Channels after the first convolution; doubled at each halving of the map."""
    stages: int = 3
    """Halvings of the map, one residual block each."""

    def __post_init__(self) -> None:
        for name in ("hidden", "stages"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(ClassifierArchitecture):
    """A small residual classifier and its fit."""

    dropout: float = 0.0
    """Fraction of features dropped before the last layer in training."""
    seed: int = 0
    """Offset to the pipeline's seed, 0 .. 9999, so that two classifiers of one run start and shuffle differently."""
    program: str | None = None
    """Your own classifier instead of one that is fitted here: path or URI of a torch.export program (.pt2), or
    models:/<name>/<version> of a registered model that holds one. It takes float images (n, c, h, w) in [-1, 1] for any
    n and gives logits (n, classes), the classes in the order of their names. A changed program needs a new name: only
    the name is part of the fingerprint. None fits a classifier with the settings here, which are ignored otherwise.
    Ignored where the images have no classes."""
    training: TrainingConfig

    def __post_init__(self) -> None:
        ClassifierArchitecture.__post_init__(self)
        require(0 <= self.dropout < 1, f"dropout must lie in [0, 1), got {self.dropout}")
        require(0 <= self.seed <= LARGEST_OFFSET, f"seed must lie in 0 .. {LARGEST_OFFSET}, got {self.seed}")

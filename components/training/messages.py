"""What a fitting worker tells the driver. Imports nothing, so that the mailbox's process stays small."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressMessage:
    """Some updates were made."""

    update: int
    metrics: dict[str, float]
    """Means of the training metrics since the last message."""
    images_per_second: float


@dataclass(frozen=True)
class EvaluationMessage:
    """The held-out samples were measured."""

    update: int
    metrics: dict[str, float]
    pictures: dict[str, bytes]
    """PNGs by name."""

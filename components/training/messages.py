"""Messages from a fitting worker to the driver. Imports no torch, so that the mailbox's process stays small."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressMessage:
    """Sent every few updates."""

    update: int
    metrics: dict[str, float]
    """Means of the training metrics since the last message."""
    images_per_second: float


@dataclass(frozen=True)
class EvaluationMessage:
    """Sent after each evaluation on the held-out samples."""

    update: int
    metrics: dict[str, float]
    pictures: dict[str, bytes]
    """PNGs by name."""

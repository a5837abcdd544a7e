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


@dataclass(frozen=True)
class RemarkMessage:
    """Sent by any worker when there is something to tell a person."""

    line: str


@dataclass(frozen=True)
class FinalMessage:
    """Sent when the best weights were measured on samples besides the held-out ones."""

    update: int
    name: str
    """Which samples: train, test."""
    metrics: dict[str, float]

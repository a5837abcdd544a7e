"""What a fitting worker tells the driver. Imports nothing: the board's process, which reads them, stays small."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressMessage:
    """Some updates more were made."""

    update: int
    metrics: dict[str, float]
    """Means of the training metrics since the last note."""
    images_per_second: float


@dataclass(frozen=True)
class EvaluationMessage:
    """The held-out samples were measured."""

    update: int
    metrics: dict[str, float]
    pictures: dict[str, bytes]
    """PNGs by name."""

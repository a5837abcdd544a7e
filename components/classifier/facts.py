"""Facts of a classifier's fit."""

from dataclasses import dataclass
from typing import Literal

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts(Facts):
    """Held-out figures of the committed weights."""

    held_out_accuracy: float | None
    """None where nothing was fitted."""
    held_out_loss: float | None = 0.0
    """Cross entropy in nats; None where nothing was fitted."""
    best_update: int = 0
    """Update of the committed weights."""
    task: Literal["classes", "rotation", "none"] = "classes"
    """What the figures are about: the classes of the images, or rotations by multiples of 90 degrees. none: the images
    have fewer than two classes, so that there is nothing to reject samples by, and nothing was fitted."""

    def headline(self) -> str:
        """Accuracy, or why there is none."""
        if self.held_out_accuracy is None:
            return "not fitted: with fewer than two classes nothing is rejected"
        of = " of rotations: the images have fewer than two classes" if self.task == "rotation" else ""
        return f"held-out accuracy {self.held_out_accuracy:.1%}{of}"

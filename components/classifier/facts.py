"""What a classifier's step tells about its fit."""

from dataclasses import dataclass

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts(Facts):
    """Held-out figures of the weights that were kept."""

    held_out_accuracy: float
    held_out_loss: float = 0.0
    """Cross entropy in nats."""
    best_update: int = 0
    """Update at which the kept weights were measured."""

    def headline(self) -> str:
        """Accuracy."""
        return f"held-out accuracy {self.held_out_accuracy:.1%}"

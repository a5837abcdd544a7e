"""Facts of a classifier's fit."""

from dataclasses import dataclass

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class ClassifierFacts(Facts):
    """Held-out figures of the committed weights."""

    held_out_accuracy: float
    held_out_loss: float = 0.0
    """Cross entropy in nats."""
    best_update: int = 0
    """Update of the committed weights."""

    def headline(self) -> str:
        """Accuracy."""
        return f"held-out accuracy {self.held_out_accuracy:.1%}"

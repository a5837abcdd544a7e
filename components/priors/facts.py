"""Results of a prior's fit."""

from dataclasses import dataclass

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class PriorFacts(Facts):
    """Held-out figures of the best weights, and what they are compared with."""

    nats_per_code: float
    unigram_nats: float
    """Nats per code, on the same held-out images, of a model that knows only how frequent each code is: the prior must
    be below."""
    train_nats_per_code: float | None = None
    """Nats per code of as many training images, without their augmented copies; None in facts of earlier versions."""
    test_nats_per_code: float | None = None
    """Nats per code of as many test images; None without a test split."""
    bits_per_code: float = 0.0
    bits_per_dimension: float = 0.0
    """Bits of this level's codes per number of the image (height x width x channels)."""
    codes_per_image: int = 0
    best_update: int = 0
    """Update at which the committed weights were measured."""
    updates: int = 0
    """Updates made in all."""
    parameters: int = 0

    def headline(self) -> str:
        """Nats per code beside the unigram entropy."""
        others = {"training": self.train_nats_per_code, "test": self.test_nats_per_code}
        measured = "".join(f", {name} {nats:.3f}" for name, nats in others.items() if nats is not None)
        return f"held-out {self.nats_per_code:.3f} nats per code (unigram entropy {self.unigram_nats:.3f}{measured})"

"""Settings of one level's PixelCNN prior."""

from dataclasses import dataclass

from components.config import TrainingConfig, require

PRIOR_VERSION = 1
"""Raised whenever the same settings would now give another result: part of every fingerprint of this step."""


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """One level's gated PixelCNN (Algorithm 2, lines 7-9) and its fit."""

    hidden: int
    """Channels of the vertical and of the horizontal stack; a multiple of attention_heads where there is attention."""
    residual_hidden: int
    """Channels inside a gated block, between its causal convolution and its gate (table 4: residual units)."""
    layers: int
    """Gated blocks."""
    filter_size: int = 5
    """Side of the causal filters: odd, at least 3."""
    attention_layers: int = 0
    """Causal self-attention layers, spread evenly among the gated blocks."""
    attention_heads: int = 8
    """Heads an attention layer."""
    output_layers: int = 0
    """Residual 1x1 blocks between the stacks and the logits."""
    conditioning_layers: int = 0
    """Residual blocks of the stack that reads the code maps above; the top level has nothing above and takes 0."""
    dropout: float = 0.0
    """Share of activations dropped in each gated block while fitting."""
    label_dropout: float = 0.0
    """Share of samples fitted without their class, so that unconditional sampling and guidance work."""
    recompute: bool = False
    """Whether activations within layers are computed again in the backward pass instead of kept (gradient
    checkpointing): about a third more time, memory for one layer's instead of all. The result is the same."""
    training: TrainingConfig

    def __post_init__(self) -> None:
        for name in ("hidden", "residual_hidden", "layers", "attention_heads"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("attention_layers", "output_layers", "conditioning_layers"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        odd = self.filter_size >= 3 and self.filter_size % 2 == 1
        require(odd, f"filter_size must be odd and at least 3, got {self.filter_size}")
        fits = self.attention_layers == 0 or self.hidden % self.attention_heads == 0
        require(fits, f"hidden must be a multiple of attention_heads={self.attention_heads}, got {self.hidden}")
        require(
            self.attention_layers <= self.layers,
            f"attention_layers must be at most layers={self.layers}, got {self.attention_layers}",
        )
        for name in ("dropout", "label_dropout"):
            require(0 <= getattr(self, name) < 1, f"{name} must lie in [0, 1), got {getattr(self, name)}")

"""Settings of one level's PixelCNN prior, and of drawing from it."""

from dataclasses import dataclass, field
from typing import Literal

from components.config import STORED_BEFORE, Execution, TrainingConfig, require

PRIOR_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class PriorArchitecture:
    """What is needed to build one level's gated PixelCNN and to draw from it: stored beside its weights."""

    hidden: int
    """Channels of the vertical and of the horizontal stack; a multiple of attention_heads where there is attention."""
    residual_hidden: int
    """Channels inside a gated block, between its causal convolution and its gate (table 4: residual units)."""
    layers: int
    """Gated blocks."""
    filter_size: int = 5
    """Side of the causal filters: odd, at least 3."""
    attention_layers: int = 0
    """Causal self-attention layers, one in each of as many equal runs of the gated blocks."""
    attention_placement: Literal["end", "middle"] = field(default="end", metadata={STORED_BEFORE: "middle"})
    """Block of its run that an attention layer follows. end: the last (section 3.2: after every five layers). middle:
    the middle one, as in priors of version 1, which still load."""
    attention_heads: int = 8
    """Heads per attention layer."""
    output_layers: int = 0
    """Residual 1x1 blocks between the stacks and the logits."""
    conditioning_layers: int = 0
    """Residual blocks of the stack that reads the code maps above; 0 for the top level, which has no map above."""
    label_dropout: float = 0.0
    """Fraction of samples fitted without their class; above 0, unconditional sampling and guidance work."""

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
        placement = self.attention_placement
        require(placement in ("end", "middle"), f"attention_placement must be 'end' or 'middle', got {placement!r}")
        require(0 <= self.label_dropout < 1, f"label_dropout must lie in [0, 1), got {self.label_dropout}")

    def attended_blocks(self) -> list[int]:
        """Index of the gated block that each attention layer follows."""
        count, layers = self.attention_layers, self.layers
        if self.attention_placement == "middle":
            return [(2 * run + 1) * layers // (2 * count) for run in range(count)]
        return [(run + 1) * layers // count - 1 for run in range(count)]


@dataclass(frozen=True, kw_only=True)
class PriorFitting:
    """What shapes a prior while it is fitted, and is not needed afterwards."""

    dropout: float = 0.0
    """Fraction of activations dropped while fitting: in every gated, conditioning and output block before its last
    product, and of the weights of every attention layer (section 3.2; tables 4 and 5 give one number per prior)."""
    training: TrainingConfig

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, f"dropout must lie in [0, 1), got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class PriorExecution(Execution):
    """How a prior's fit is computed."""

    recompute: bool = False
    """Whether activations within layers are computed again in the backward pass instead of stored (gradient
    checkpointing): about a third more time, memory for one layer's instead of all. The result is the same."""


@dataclass(frozen=True, kw_only=True)
class PriorConfig(PriorExecution, PriorFitting, PriorArchitecture):
    """One level's gated PixelCNN and its fit (Algorithm 2, lines 8 and 9)."""

    def __post_init__(self) -> None:
        PriorArchitecture.__post_init__(self)
        PriorFitting.__post_init__(self)


# --- drawing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What is done to a prior's logits before a code is drawn, in this order: guidance, temperature, top k, top p."""

    temperature: float = 1.0
    """Divides the logits; 1 draws from the distribution as it was fitted."""
    top_k: int = 0
    """Sample from the k most likely codes (ties with the last of them included); 0 samples from all."""
    top_p: float = 1.0
    """Sample from the most likely codes that together have this probability (Holtzman et al. 2020); 1: from all."""
    guidance: float = 1.0
    """Logits are those without a class plus `guidance` times what the class adds (Ho and Salimans 2022): 1 as fitted,
    above 1 further into the class. Anything but 1 needs a prior fitted with label_dropout."""

    def __post_init__(self) -> None:
        temperature = self.temperature
        require(temperature > 0, f"temperature must be above 0, got {temperature}: small ones give the likeliest codes")
        require(self.top_k >= 0, f"top_k must be at least 1, or 0 for all codes, got {self.top_k}")
        require(0 < self.top_p <= 1, f"top_p must lie in (0, 1], got {self.top_p}: 1 draws from all codes")
        require(0 <= self.guidance < float("inf"), f"guidance must be 0 or above, got {self.guidance}: 1 is none")


AS_FITTED = SamplingConfig()
"""Logits are left as they are: codes come from the fitted distribution."""

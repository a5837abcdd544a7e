"""Settings of the hierarchical VQ-VAE. Defaults are the paper's (Razavi et al. 2019, table 3)."""

from dataclasses import dataclass
from typing import Literal

from components.config import TrainingConfig, require

TOKENIZER_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """One level of the hierarchy: its code map and its codebook."""

    name: str
    """Name of the level in columns, metrics and files: top, middle, bottom."""
    stride: int
    """Side in pixels of the image area that one code covers: a power of two, at least 2."""
    codebook_size: int = 512
    """Vectors in the codebook (K)."""
    code_width: int = 64
    """Numbers per vector (D)."""

    def __post_init__(self) -> None:
        require(self.name.isidentifier(), f"a level's name must be an identifier, got {self.name!r}")
        power_of_two = self.stride >= 2 and self.stride & (self.stride - 1) == 0
        require(power_of_two, f"stride of level '{self.name}' must be a power of two, at least 2, got {self.stride}")
        size = self.codebook_size
        require(size >= 2, f"codebook_size of level '{self.name}' must be at least 2, got {size}")
        require(self.code_width >= 1, f"code_width of level '{self.name}' must be at least 1, got {self.code_width}")


@dataclass(frozen=True, kw_only=True)
class VQVAEArchitecture:
    """What is needed to build a tokenizer and to use it: stored beside its weights."""

    levels: tuple[LevelConfig, ...]
    """Top first: strides fall from level to level."""
    hidden: int = 128
    """Channels of encoders and decoders."""
    residual_hidden: int = 64
    """Channels inside a residual block."""
    residual_layers: int = 2
    """Residual blocks per encoder or decoder."""
    quantizer: Literal["ema"] = "ema"
    """Kind of quantizer (components/tokenizer/quantizers.py); ema: codebooks updated by moving averages."""
    decay: float = 0.99
    """Gamma of the codebooks' moving averages; decoding from upper levels alone weights vectors by these averages."""

    def __post_init__(self) -> None:
        require(len(self.levels) >= 1, "levels must name at least one level, got none")
        names = [level.name for level in self.levels]
        require(len(set(names)) == len(names), f"level names must differ, got {names}")
        for upper, lower in zip(self.levels, self.levels[1:], strict=False):
            falls = upper.stride > lower.stride
            require(
                falls,
                f"strides must fall from the top level down: '{upper.name}' has {upper.stride}, "
                f"'{lower.name}' below it has {lower.stride}: list the coarsest level first",
            )
        for name in ("hidden", "residual_hidden"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(self.residual_layers >= 0, f"residual_layers must not be negative, got {self.residual_layers}")
        require(0 < self.decay < 1, f"decay must lie in (0, 1), got {self.decay}")


@dataclass(frozen=True, kw_only=True)
class VQVAEFitting:
    """Settings that matter while a tokenizer is fitted and are not needed afterwards."""

    beta: float = 0.25
    """Commitment cost (equation 2's beta)."""
    restart_below: float = 0.01
    """A code restarts when its average count per update falls below this fraction of the uniform count; 0: never."""
    prefix_share: float = 0.05
    """Fraction of the training images that are decoded from their upper levels alone (nested dropout, Rippel et al.
    2014): makes the upper levels carry the most important content even where the lowest level alone could reconstruct
    the image, and makes them show it (measured in benchmarks/README.md). The paper has nothing like it: 0 there."""

    def __post_init__(self) -> None:
        require(self.beta >= 0, f"beta must not be negative, got {self.beta}")
        for name in ("restart_below", "prefix_share"):
            require(0 <= getattr(self, name) < 1, f"{name} must lie in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(VQVAEFitting, VQVAEArchitecture):
    """The hierarchical VQ-VAE and its fit (Algorithm 1)."""

    training: TrainingConfig

    def __post_init__(self) -> None:
        VQVAEArchitecture.__post_init__(self)
        VQVAEFitting.__post_init__(self)

"""Settings of a feature extractor that the user brings."""

import re
from dataclasses import dataclass
from typing import Literal

from components.config import require

CHANNELS = (1, 3)
TAKEN_NAMES = ("judge",)
"""Of the features that every evaluation has."""


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """A program, and how pixels become its input: channels, then range, then size."""

    name: str
    """Names its figures: lower case letters, digits and underscores."""
    program: str
    """Path or URI of an exported torch program (.pt2): `features, logits = f(images)`, or features alone, for float
    images (n, channels, h, w) and any n; features (n, f), logits (n, classes). `python -m pipeline features` writes
    those of the field."""
    channels: int = 3
    """Channels of its input: 3 (grayscale images are repeated) or 1 (grayscale images only)."""
    value_range: tuple[float, float] = (0.0, 255.0)
    """Values of a black and a white pixel in its input; (0, 255) leaves pixels as they are stored."""
    image_size: int | None = None
    """Side in pixels to which images are resized for it; None: as they are (the program resizes, or takes any size)."""
    resize: Literal["bilinear", "bicubic"] = "bicubic"
    """Interpolation to image_size, with pixels as areas (align_corners=False), clamped to value_range and not rounded;
    ignored without image_size."""
    antialias: bool = True
    """Whether downscaling averages over the area of a pixel, as Pillow does and Parmar et al. 2022 advise; ignored
    without image_size."""
    statistics: str | None = None
    """Path or URI of reference statistics (.npz with `mu` and `sigma`) that replace the real images' in the Frechet
    distance; `python -m pipeline features statistics` writes them. None: of the real images of the evaluation."""

    def __post_init__(self) -> None:
        named = re.fullmatch(r"[a-z][a-z0-9_]*", self.name)
        require(bool(named), f"features.name must be lower case letters, digits and underscores, got {self.name!r}")
        require(self.name not in TAKEN_NAMES, f"features.name must not be {self.name!r}, which every evaluation has")
        require(bool(self.program), f"features.program of {self.name!r} must name a .pt2 file, got nothing")
        require(self.channels in CHANNELS, f"features.channels must be one of {CHANNELS}, got {self.channels}")
        low, high = self.value_range
        require(low < high, f"features.value_range must be (black, white) with black below white, got {(low, high)}")
        sized = self.image_size is None or self.image_size >= 1
        require(sized, f"features.image_size must be at least 1 or None, got {self.image_size}")

"""Programs of the user: pixels to features, and pairs of images to distances.

Shapes: n images, h w sides, c channels, f features, y classes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.config import require
from components.evaluation.features.config import FeaturesConfig
from components.store.programs import load_program, program_digest

WHITE = 255
"""Largest value of a pixel."""


class ExtractedFeatures(NamedTuple):
    """What an extractor gives for n images."""

    features: Tensor
    """float32 (n, f)."""
    logits: Tensor | None
    """float32 (n, y); None: it gives none."""


class FeatureProgram(nn.Module):
    """Pixels uint8 (n, h, w, c) -> ExtractedFeatures, by an exported program and the preprocessing of its config."""

    def __init__(self, data: bytes, config: FeaturesConfig, *, device: str = "cpu") -> None:
        """`data` is the content of a .pt2 file. Raises ValueError for anything else, and for one that may run code."""
        super().__init__()
        self.config = config
        self.digest = program_digest(data)
        """SHA-256 of the program's file."""
        self.device = torch.device(device)
        self.program = load_program(data, f"the program of features {config.name!r}", device=device)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> ExtractedFeatures:
        """Features and logits of `pixels`, on the program's device; raises ValueError when the program gives others."""
        return self._checked(self.program(self.prepare(pixels)), len(pixels))

    def prepare(self, pixels: Tensor) -> Tensor:
        """The program's input float32 (n, channels, h, w) on its device."""
        stored = pixels.dtype == torch.uint8 and pixels.ndim == 4
        require(stored, f"pixels must be uint8 (n, h, w, c), got {pixels.dtype} {tuple(pixels.shape)}")
        images = pixels.to(self.device).permute(0, 3, 1, 2).float()  # (n, c, h, w) in [0, 255]
        if images.shape[1] == 1 and self.config.channels > 1:
            images = images.expand(-1, self.config.channels, -1, -1)
        fits = images.shape[1] == self.config.channels
        require(fits, f"{self._name} takes {self.config.channels} channels, got {images.shape[1]}: set its channels")
        low, high = self.config.value_range
        images = low + images * ((high - low) / WHITE)
        size = self.config.image_size
        if size is None or images.shape[2:] == (size, size):
            return images
        mode, antialias = self.config.resize, self.config.antialias
        resized = F.interpolate(images, (size, size), mode=mode, align_corners=False, antialias=antialias)
        return resized.clamp(low, high)  # bicubic weights overshoot

    def check(self, image_size: int, channels: int) -> int:
        """Number of features f; raises ValueError unless it gives finite features for any number of such images."""
        black = torch.zeros(3, image_size, image_size, channels, dtype=torch.uint8)
        one, three = self._tried(black[:1]), self._tried(black)
        widths = one.features.shape[1], three.features.shape[1]
        require(widths[0] == widths[1], f"{self._name} must give equally many features for any n, got {widths}")
        return widths[0]

    @property
    def _name(self) -> str:
        return f"the program of features {self.config.name!r}"

    def _tried(self, pixels: Tensor) -> ExtractedFeatures:
        shape = tuple(self.prepare(pixels).shape)
        try:
            given = self.program(self.prepare(pixels))
        except Exception as error:  # a program can raise anything
            raise ValueError(
                f"{self._name} must take float images {shape}, but failed: {error}: set image_size and channels as it "
                "needs them, and export it with a dynamic first dimension: torch.export.export(model, (images,), "
                "dynamic_shapes=({0: torch.export.Dim.AUTO},))"
            ) from error
        return self._checked(given, len(pixels))

    def _checked(self, given: Any, count: int) -> ExtractedFeatures:
        """The program's output for `count` images as float32."""
        parts = list(given) if isinstance(given, tuple | list) else [given]
        tables = all(isinstance(part, Tensor) and part.ndim == 2 and len(part) == count for part in parts)
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        require(
            1 <= len(parts) <= 2 and tables and parts[0].shape[1] >= 1,
            f"{self._name} must give features ({count}, f), or (features, logits) with logits ({count}, classes), "
            f"got {shapes}: return them from the model's forward, flattened",
        )
        features, logits = parts[0].float(), parts[1].float() if len(parts) == 2 else None
        finite = all(bool(torch.isfinite(part).all()) for part in (features, logits) if part is not None)
        low, high = self.config.value_range
        require(
            finite, f"{self._name} must give finite numbers, got NaN or infinity: is its range {low:g} .. {high:g}?"
        )
        return ExtractedFeatures(features, logits)


class DistanceProgram(nn.Module):
    """Two sets of pixels uint8 (n, h, w, c) -> distance float32 (n,) of each pair, by an exported program.

    The program is d = f(a, b) on float images (n, 3, h, w) in [0, 255].
    """

    def __init__(self, data: bytes, *, device: str = "cpu") -> None:
        """`data` is the content of a .pt2 file. Raises ValueError for anything else, and for one that may run code."""
        super().__init__()
        self.digest = program_digest(data)
        self.device = torch.device(device)
        self.program = load_program(data, "the program of lpips", device=device)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        given = self.program(self._prepare(a), self._prepare(b))
        fits = isinstance(given, Tensor) and given.numel() == len(a) and bool(torch.isfinite(given).all())
        got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        require(fits, f"the program of lpips must give {len(a)} finite distances, got {got}")
        return given.float().reshape(-1)

    def check(self, image_size: int, channels: int) -> None:
        """Raise ValueError unless it gives distances for any number of such images."""
        for count in (1, 3):
            black = torch.zeros(count, image_size, image_size, channels, dtype=torch.uint8)
            try:
                self(black, black.clone())
            except Exception as error:  # a program can raise anything
                raise ValueError(
                    f"the program of lpips must take two sets of {count} images of {image_size} pixels, but failed: "
                    f"{error}: export it as `python -m pipeline features lpips` does"
                ) from error

    def _prepare(self, pixels: Tensor) -> Tensor:
        images = pixels.to(self.device).permute(0, 3, 1, 2).float()  # (n, c, h, w)
        return images.expand(-1, 3, -1, -1)

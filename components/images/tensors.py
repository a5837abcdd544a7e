"""Pixels as they are stored <-> images as models take them. torch only.

Shapes: n images, height width sides of an image, c channels.
"""

import torch
from torch import Tensor

from components.config import require

HALF_RANGE = 127.5
"""A pixel 0 .. 255 is HALF_RANGE times (1 + value), its value in [-1, 1]."""


def to_images(pixels: Tensor) -> Tensor:
    """Stored pixels uint8 (n, height, width, c) -> images float32 (n, c, height, width) in [-1, 1]."""
    stored = pixels.dtype == torch.uint8 and pixels.ndim == 4
    require(
        stored,
        f"pixels must be uint8 (n, height, width, c), got {pixels.dtype} {tuple(pixels.shape)}: images "
        "that are float already need no to_images",
    )
    return pixels.permute(0, 3, 1, 2).float() / HALF_RANGE - 1  # (n, c, height, width)


def to_pixels(images: Tensor) -> Tensor:
    """Images float (n, c, height, width) -> pixels uint8 (n, height, width, c); values are clamped to [-1, 1]."""
    floats = images.is_floating_point() and images.ndim == 4
    require(floats, f"images must be float (n, c, height, width), got {images.dtype} {tuple(images.shape)}")
    brightness = (images.float().clamp(-1, 1) + 1) * HALF_RANGE  # (n, c, height, width) in [0, 255]
    return brightness.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

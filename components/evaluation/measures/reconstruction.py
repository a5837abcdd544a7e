"""How closely the tokenizer reproduces images, per image. Shapes: n images, h w sides, c channels."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from components.config import require
from components.tokenizer.psnr import psnr_per_image

LARGEST_PIXEL = 255
"""Peak of 8-bit pixels."""
SSIM_WINDOW = 11
"""Side in pixels of the structural similarity's window (Wang et al. 2004, section III.C); images must be as large."""
SSIM_SIGMA = 1.5
"""Standard deviation in pixels of the window's Gaussian weights (the same section)."""
STABILITY = ((0.01 * LARGEST_PIXEL) ** 2, (0.03 * LARGEST_PIXEL) ** 2)
"""C1 and C2 of the structural similarity (the same section)."""
IMAGES_PER_CHUNK_OF_SSIM = 64
"""Images whose maps are held at once, in float64."""


class ReconstructionErrors(NamedTuple):
    """One number per image, float64 (n,) each; published figures are their means."""

    psnr: Tensor
    """dB, higher is better."""
    ssim: Tensor
    """At most 1, which equal images have; NaN for images smaller than SSIM_WINDOW."""
    mse: Tensor
    """Mean squared error of pixels from 0 to 255."""


def measure_reconstruction(reconstructed: Tensor, images: Tensor) -> ReconstructionErrors:
    """Errors of pixels uint8 (n, h, w, c) against the originals, of the same shape."""
    fits = reconstructed.shape == images.shape
    require(
        fits, f"reconstructions must have the shape of their images {tuple(images.shape)}, got {reconstructed.shape}"
    )
    mse = torch.cat(
        [
            (a.double() - b.double()).square().mean(dim=(1, 2, 3))
            for a, b in zip(reconstructed.split(64), images.split(64), strict=True)
        ]
    )  # (n,)
    small = min(images.shape[1:3]) < SSIM_WINDOW
    ssim = torch.full_like(mse, math.nan) if small else ssim_per_image(reconstructed, images)
    return ReconstructionErrors(psnr_per_image(reconstructed, images, peak=LARGEST_PIXEL), ssim, mse)


def ssim_per_image(reconstructed: Tensor, images: Tensor) -> Tensor:
    """Structural similarity float64 (n,) of pixels uint8 (n, h, w, c), mean over positions and channels.

    Wang et al. 2004, equation 13, of each channel; the window stays inside the image, as in the authors' code, but
    images are not made smaller first.
    """
    large = min(images.shape[1:3]) >= SSIM_WINDOW
    require(large, f"images must have at least {SSIM_WINDOW} pixels a side for SSIM, got {tuple(images.shape[1:3])}")
    parts = zip(reconstructed.split(IMAGES_PER_CHUNK_OF_SSIM), images.split(IMAGES_PER_CHUNK_OF_SSIM), strict=True)
    return torch.cat([_ssim(*(each.permute(0, 3, 1, 2).double() for each in part)) for part in parts])


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    """(n, c, h, w) float64 each -> (n,)."""
    mean_x, mean_y = _window_means(x), _window_means(y)  # (n, c, positions high, positions wide)
    var_x, var_y = _window_means(x * x) - mean_x**2, _window_means(y * y) - mean_y**2
    covariance = _window_means(x * y) - mean_x * mean_y
    c1, c2 = STABILITY
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast_and_structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * contrast_and_structure).mean(dim=(1, 2, 3))


def _window_means(values: Tensor) -> Tensor:
    """Gaussian-weighted means (n, c, h - 10, w - 10) over the windows that lie inside (n, c, h, w)."""
    offsets = torch.arange(SSIM_WINDOW, dtype=values.dtype) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights = weights / weights.sum()  # (11,)
    planes = values.flatten(0, 1)[:, None]  # (n * c, 1, h, w)
    means = F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return means.view(*values.shape[:2], *means.shape[2:])

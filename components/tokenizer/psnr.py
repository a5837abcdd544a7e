"""The peak signal-to-noise ratio, for images of any range."""

import torch
from torch import Tensor

SMALLEST_SQUARED_ERROR = 1e-12
"""Mean squared error, relative to peak^2, below which PSNR is capped: equal images have 120 dB instead of infinity."""


def psnr_per_image(reconstruction: Tensor, images: Tensor, *, peak: float) -> Tensor:
    """PSNR in dB of each image, float (n,), of tensors (n, ...) of one shape: -10 log10(mean squared error / peak^2).

    `peak` is the width of the range of values: 255 for 8-bit pixels, 2 for images in [-1, 1] (to which the caller
    clamps). The result is float64 for uint8 and float64 images, otherwise float32.
    """
    precise = images.dtype in (torch.uint8, torch.float64)
    error = reconstruction.to(torch.float64 if precise else torch.float32) - images  # (n, ...)
    relative = error.flatten(1).square().mean(dim=1) / peak**2  # (n,)
    return -10 * torch.log10(relative.clamp(min=SMALLEST_SQUARED_ERROR))


def psnr(reconstruction: Tensor, images: Tensor, *, peak: float) -> Tensor:
    """Mean over images of their PSNR in dB, a scalar, as it is published; tensors and `peak` as in `psnr_per_image`.

    It exceeds the PSNR of the mean squared error over all images, unless all images have the same error.
    """
    return psnr_per_image(reconstruction, images, peak=peak).mean()

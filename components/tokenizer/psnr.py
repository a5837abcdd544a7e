"""The peak signal-to-noise ratio, for images of any range."""

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_SQUARED_ERROR = 1e-12
"""Mean squared error, relative to peak^2, below which PSNR is capped: equal images have 120 dB instead of infinity."""


def psnr(reconstruction: Tensor, images: Tensor, *, peak: float) -> Tensor:
    """PSNR in dB of tensors of one shape, a float32 scalar: -10 log10(mean squared error / peak^2).

    `peak` is the width of the range of values: 255 for 8-bit pixels, 2 for images in [-1, 1] (to which the caller
    clamps). The mean is taken over all images together.
    """
    error = F.mse_loss(reconstruction.float(), images.float()) / peak**2
    return -10 * torch.log10(error.clamp(min=SMALLEST_SQUARED_ERROR))

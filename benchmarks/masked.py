"""The usual PixelCNN, to compare with: full filters whose weights are multiplied by a mask in every forward pass."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.priors.causal import CausalConvolution, GatedBlock
from components.priors.model import Prior


class MaskedConvolution(nn.Module):
    """A full filter that equals `cropped` after masking: (n, h, w, inputs) -> (n, h, w, outputs)."""

    mask: Tensor

    def __init__(self, cropped: CausalConvolution) -> None:
        super().__init__()
        left, above = cropped.margins[2] + int(cropped.padding[1]), cropped.margins[4]
        height, width = 2 * above + 1, 2 * left + 1
        rows, columns = cropped.kernel_size
        weight = torch.zeros(*cropped.weight.shape[:2], height, width)
        mask = torch.zeros(height, width)
        weight[:, :, :rows, :columns], mask[:rows, :columns] = cropped.weight.detach(), 1
        self.weight, self.padding = nn.Parameter(weight), (above, left)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x.permute(0, 3, 1, 2), self.weight * self.mask, padding=self.padding).permute(0, 2, 3, 1)


def with_masked_filters(prior: Prior) -> Prior:
    """A copy of `prior` that computes the same with masked filters."""
    masked = copy.deepcopy(prior)
    for block in masked.blocks:
        assert isinstance(block, GatedBlock)
        block.vertical = MaskedConvolution(block.vertical)  # type: ignore[assignment]
        block.horizontal = MaskedConvolution(block.horizontal)  # type: ignore[assignment]
    return masked

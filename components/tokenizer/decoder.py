"""From quantized vectors up to features or images.

Shapes: n images, c channels, h w sides of a map, s = 2^doublings.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.tokenizer.config import VQVAEArchitecture
from components.tokenizer.residual import ResidualStack


class Upsampling(nn.Module):
    """Transposed convolutions (filter 4, stride 2), relus between: (n, c, h, w) -> (n, c', h s, w s)."""

    def __init__(self, channels: Sequence[int]) -> None:
        """`channels` of the input, after each doubling but the last, and of the output."""
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(source, target, 4, stride=2, padding=1) for source, target in pairwise(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(F.relu(x) if index else x)  # sides doubled
        return x


class Decoder(nn.Module):
    """3x3 convolution, residual stack, upsampling: (n, c, h, w) -> (n, c', h s, w s)."""

    def __init__(self, inputs: int, outputs: int, architecture: VQVAEArchitecture, *, doublings: int) -> None:
        super().__init__()
        hidden = architecture.hidden
        self.stem = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.stack = ResidualStack(hidden, architecture.residual_hidden, architecture.residual_layers)
        # The map before the last doubling is the largest: with half the channels it costs about as much as the others.
        halved = [max(1, hidden // 2)] if doublings > 1 else []
        self.upsampling = Upsampling([hidden] * (doublings - len(halved)) + halved + [outputs])

    def forward(self, x: Tensor) -> Tensor:
        return self.upsampling(self.stack(self.stem(x)))  # stem and stack: (n, hidden, h, w)


class ImageDecoder(nn.Module):
    """The decoder D of Algorithm 1. It reads the vectors of all levels, the upper ones upsampled to the lowest map."""

    def __init__(self, architecture: VQVAEArchitecture, *, channels: int) -> None:
        super().__init__()
        lowest = architecture.levels[-1]
        self.upsamplings = nn.ModuleList(
            Upsampling([level.code_width] * (1 + doublings(level.stride, lowest.stride)))
            for level in architecture.levels[:-1]
        )
        width = sum(level.code_width for level in architecture.levels)  # channels of all levels' vectors together
        self.decoder = Decoder(width, channels, architecture, doublings=doublings(lowest.stride, 1))

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Vectors (n, d, h, w) per level, top first -> images (n, c, height, width), not clamped."""
        *upper, lowest = vectors
        upsampled = [upsampling(e) for upsampling, e in zip(self.upsamplings, upper, strict=True)]  # (n, d, h, w) each
        return self.decoder(torch.cat([*upsampled, lowest], dim=1))


def doublings(coarse: int, fine: int) -> int:
    """How often a map of stride `coarse` must double to have stride `fine`, both powers of two."""
    return (coarse // fine).bit_length() - 1  # log2 of a power of two

"""From images down to the outputs that are quantized.

Shapes: n images, c channels, h w sides of a map, s = 2^halvings, f hidden channels, d code width.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.tokenizer.config import VQVAEArchitecture
from components.tokenizer.decoder import Decoder
from components.tokenizer.residual import ResidualStack


class Encoder(nn.Module):
    """Strided convolutions (filter 4, stride 2), 3x3 convolution, residual stack: (n, c, h s, w s) -> (n, f, h, w)."""

    def __init__(self, inputs: int, architecture: VQVAEArchitecture, *, halvings: int) -> None:
        super().__init__()
        hidden = architecture.hidden
        # The first map is the largest: with half the channels it costs about as much as the others.
        channels = [inputs, max(1, hidden // 2)] + [hidden] * (halvings - 1)
        self.strided = nn.ModuleList(
            nn.Conv2d(source, target, 4, stride=2, padding=1) for source, target in pairwise(channels)
        )
        self.last = nn.Conv2d(channels[-1], hidden, 3, padding=1)
        self.stack = ResidualStack(hidden, architecture.residual_hidden, architecture.residual_layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.strided:
            x = F.relu(layer(x))  # sides halved
        return self.stack(self.last(x))  # (n, f, h, w)


class TopHead(nn.Module):
    """The top level's output, from its features alone: (n, f, h, w) -> (n, d, h, w)."""

    def __init__(self, architecture: VQVAEArchitecture, *, code_width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(architecture.hidden, code_width, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features)  # (n, d, h, w)


class LowerHead(nn.Module):
    """A lower level's output, from its features and the vectors of the level above (Algorithm 1, line 3)."""

    def __init__(self, architecture: VQVAEArchitecture, *, code_width: int, above_width: int, doublings: int) -> None:
        super().__init__()
        self.above = Decoder(above_width, architecture.hidden, architecture, doublings=doublings)
        self.project = nn.Conv2d(2 * architecture.hidden, code_width, 1)

    def forward(self, features: Tensor, above: Tensor) -> Tensor:
        """Features (n, f, h, w), vectors above (n, d', h / s, w / s) -> (n, d, h, w)."""
        return self.project(torch.cat([features, self.above(above)], dim=1))  # cat: (n, 2f, h, w)

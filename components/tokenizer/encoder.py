"""From images down to what is quantized.

Shapes: n images, c channels, h w sides of a map, s = 2^halvings, f hidden channels, d code width.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.tokenizer.config import VQVAEConfig
from components.tokenizer.decoder import Decoder
from components.tokenizer.residual import ResidualStack


class Encoder(nn.Module):
    """Strided convolutions (filter 4, stride 2), 3x3 convolution, residual stack: (n, c, h s, w s) -> (n, f, h, w)."""

    def __init__(self, inputs: int, config: VQVAEConfig, *, halvings: int) -> None:
        super().__init__()
        hidden = config.hidden
        # The first map is the largest: half the channels there keep its cost near that of the others.
        channels = [inputs, max(1, hidden // 2)] + [hidden] * (halvings - 1)
        self.strided = nn.ModuleList(
            nn.Conv2d(source, target, 4, stride=2, padding=1) for source, target in pairwise(channels)
        )
        self.last = nn.Conv2d(channels[-1], hidden, 3, padding=1)
        self.stack = ResidualStack(hidden, config.residual_hidden, config.residual_layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.strided:
            x = F.relu(layer(x))
        return self.stack(self.last(x))


class TopHead(nn.Module):
    """What the top level quantizes, from its features alone: (n, f, h, w) -> (n, d, h, w)."""

    def __init__(self, config: VQVAEConfig, *, code_width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(config.hidden, code_width, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features)


class LowerHead(nn.Module):
    """What a lower level quantizes, from its features and the vectors of the level above (Algorithm 1, line 3)."""

    def __init__(self, config: VQVAEConfig, *, code_width: int, above_width: int, doublings: int) -> None:
        super().__init__()
        self.above = Decoder(above_width, config.hidden, config, doublings=doublings)
        self.project = nn.Conv2d(2 * config.hidden, code_width, 1)

    def forward(self, features: Tensor, above: Tensor) -> Tensor:
        """Features (n, f, h, w), vectors above (n, d', h / s, w / s) -> (n, d, h, w)."""
        return self.project(torch.cat([features, self.above(above)], dim=1))

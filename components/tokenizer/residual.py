"""The residual stack of encoders and decoders. Shapes: n images, c channels, h w sides of a map."""

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """relu, 3x3 convolution, relu, 1x1 convolution, around a skip."""

    def __init__(self, hidden: int, residual_hidden: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(hidden, residual_hidden, 3, padding=1)
        self.out = nn.Conv2d(residual_hidden, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:  # (n, c, h, w) -> (n, c, h, w)
        return x + self.out(F.relu(self.inner(F.relu(x))))


class ResidualStack(nn.Module):
    """`layers` residual blocks and a last relu."""

    def __init__(self, hidden: int, residual_hidden: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(hidden, residual_hidden) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:  # (n, c, h, w) -> (n, c, h, w)
        return F.relu(self.blocks(x))

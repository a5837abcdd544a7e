"""The residual classifier. Shapes: n images, c channels, h w sides, f features, y classes."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.classifier.config import ClassifierArchitecture, ClassifierTask
from components.config import require


def _norm(channels: int) -> nn.GroupNorm:
    # Statistics of one image alone: a score must not depend on the other images of the batch. At least four channels
    # per group: on the last map, which may be a single pixel, normalising fewer would leave nothing of their values.
    return nn.GroupNorm(math.gcd(8, channels // 4) if channels % 4 == 0 else 1, channels)


class HalvingBlock(nn.Module):
    """Residual block that halves the map and doubles the channels: (n, c, h, w) -> (n, 2c, h/2, w/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.skip = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.norm_in, self.norm_mid = _norm(channels), _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(F.relu(self.norm_in(x)))  # (n, c, h/2, w/2), rounded up
        inner = self.second(F.relu(self.norm_mid(inner)))  # (n, 2c, h/2, w/2)
        return inner + self.skip(F.avg_pool2d(x, 2, ceil_mode=True))  # (n, 2c, h/2, w/2)


class Classifier(nn.Module):
    """Images float (n, c, h, w) in [-1, 1] -> logits (n, y)."""

    def __init__(
        self,
        architecture: ClassifierArchitecture,
        *,
        channels: int,
        classes: int,
        dropout: float = 0.0,
        task: ClassifierTask = "classes",
    ) -> None:
        """`dropout` is the fraction of features dropped before the last layer, in training only; `task` says what the
        `classes` logits tell apart."""
        super().__init__()
        require(channels >= 1, f"channels must be at least 1, got {channels}")
        require(classes >= 1, f"classes must be at least 1, got {classes}: does the dataset have labels?")
        self.architecture, self.channels, self.classes, self.task = architecture, channels, classes, task
        self.width = architecture.hidden * 2**architecture.stages
        # Stride 2: at full resolution this one layer would cost more than all blocks together.
        self.stem = nn.Conv2d(channels, architecture.hidden, 4, stride=2, padding=1)
        self.blocks = nn.Sequential(
            *(HalvingBlock(architecture.hidden * 2**stage) for stage in range(architecture.stages))
        )
        self.norm = _norm(self.width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.width, classes)

    def features(self, images: Tensor) -> Tensor:
        """Input of the last layer: (n, f), f = `width`.

        Raises ValueError for images of another shape, an empty batch, or values that are not finite.
        """
        got = tuple(images.shape)
        require(
            images.ndim == 4 and got[1] == self.channels,
            f"images must be (n, {self.channels}, height, width), got {got}: was it fitted to other images?",
        )
        require(got[0] >= 1, f"a batch must hold at least one image, got {got}: drop empty batches")
        # Reading a value would break a compiled graph.
        if not torch.compiler.is_compiling():
            broken = int((~torch.isfinite(images)).sum())
            require(
                broken == 0,
                f"images must be finite, got {broken} NaN or infinite values of {images.numel()}: correct the images "
                "or leave them out",
            )
        return F.relu(self.norm(self.blocks(self.stem(images)))).mean(dim=(2, 3))  # (n, f)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(images)))  # (n, y)

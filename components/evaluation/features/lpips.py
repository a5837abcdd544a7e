"""LPIPS with VGG-16 (Zhang et al. 2018), version 0.1: a perceptual distance of two images, built from its weights.

Shapes: n images, h w sides, c channels of a layer.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.config import require

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG-16's convolutions between poolings (Simonyan and Zisserman 2015, table 1, column D)."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of RGB in [-1, 1], as published with the weights."""
SMALLEST_NORM = 1e-10
"""Added to the length of a position's features, to divide by."""


class LearnedDistance(nn.Module):
    """Two sets of images float (n, 3, h, w) in [0, 255] -> distance (n,) of each pair."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = [3, *(width for stage in STAGES for width in stage)]
        pairs = itertools.pairwise(channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairs)
        self.weights = nn.ParameterList(torch.zeros(1, stage[-1], 1, 1) for stage in STAGES)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1))

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor], vgg_weights: dict[str, Tensor], source: str) -> "LearnedDistance":
        """Of the published files: LPIPS' own weights, and torchvision's VGG-16 (vgg16-397923af.pth)."""
        network = cls()
        linear = [name for name in sorted(weights) if name.startswith("lin")]  # lin0 .. lin4
        layers = sorted({int(name.split(".")[1]) for name in vgg_weights if name.startswith("features.")})
        given = len(linear), len(layers)
        require(
            given == (len(STAGES), len(network.convolutions)),
            f"{source} must hold the {len(STAGES)} weights of LPIPS (vgg.pth of version 0.1), and the second file the "
            f"{len(network.convolutions)} convolutions of VGG-16 (vgg16-397923af.pth), got {given[0]} and {given[1]}",
        )
        tensors = {f"weights.{stage}": weights[name] for stage, name in enumerate(linear)}
        for position, layer in enumerate(layers):
            for part in ("weight", "bias"):
                tensors[f"convolutions.{position}.{part}"] = vgg_weights[f"features.{layer}.{part}"]
        try:
            network.load_state_dict(tensors | {"shift": network.shift, "scale": network.scale})
        except RuntimeError as error:  # shapes of tensors
            raise ValueError(f"{source} must hold the weights of LPIPS with VGG-16, but {error}") from error
        return network.eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(a.shape[0], device=a.device)  # (n,)
        for weight, of_a, of_b in zip(self.weights, self._layers(a), self._layers(b), strict=True):
            squares = (_unit(of_a) - _unit(of_b)) ** 2  # (n, c, h, w)
            total = total + (squares * weight).sum(dim=1).mean(dim=(1, 2))  # (n,)
        return total

    def _layers(self, images: Tensor) -> Iterator[Tensor]:
        """The last map of each stage, (n, c, h, w)."""
        maps = (images / 127.5 - 1 - self.shift) / self.scale
        convolutions = iter(self.convolutions)
        for number, stage in enumerate(STAGES):
            maps = maps if number == 0 else F.max_pool2d(maps, 2)
            for _ in stage:
                maps = F.relu(next(convolutions)(maps))
            yield maps


def _unit(maps: Tensor) -> Tensor:
    """Features (n, c, h, w) of length 1 at each position."""
    return maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + SMALLEST_NORM)

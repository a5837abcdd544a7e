"""DINOv2 (Oquab et al. 2023): a vision transformer whose class token is the feature. Built from its weights alone.

Names of modules are those of the published weights (dinov2_vits14_pretrain.pth to dinov2_vitg14_pretrain.pth).
Shapes: n images, t tokens (the class token and one per patch), f width.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.config import require

PATCH_SIDE = 14
"""Pixels."""
HEAD_WIDTH = 64
"""Channels per attention head, in all published sizes."""
PATCHES_PER_SIDE = 16
"""Of the images that the network here is built for: 224 pixels."""
NORM_EPSILON = 1e-6
POSITION_OFFSET = 0.1
"""Added to the number of patches in the scale of the positions' interpolation, as the published code does."""


class DinoV2(nn.Module):
    """Normalised images float (n, 3, 224, 224) -> class token (n, f)."""

    def __init__(self, width: int, depth: int, mlp_width: int, gated: bool) -> None:
        """`gated`: whether the blocks have a SwiGLU of hidden width `mlp_width` (ViT-g), else a GELU."""
        super().__init__()
        tokens = 1 + PATCHES_PER_SIDE**2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH_SIDE, stride=PATCH_SIDE)})
        self.blocks = nn.Sequential(*(_Block(width, mlp_width, gated) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor], source: str) -> "DinoV2":
        """The network of published weights, its positions interpolated to 16 x 16 patches; `source` is for errors.

        Raises ValueError for other weights, and for the models with registers, whose positions are interpolated
        otherwise.
        """
        published = {"cls_token", "pos_embed", "patch_embed.proj.weight"} <= weights.keys()
        require(
            published and "register_tokens" not in weights,
            f"{source} must hold the weights of DINOv2 without registers (dinov2_vitl14_pretrain.pth), got "
            f"{sorted(weights)[:3]}",
        )
        depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        gated = "blocks.0.mlp.w12.weight" in weights
        hidden = weights["blocks.0.mlp.w3.weight" if gated else "blocks.0.mlp.fc2.weight"].shape[1]
        network = cls(weights["cls_token"].shape[2], depth, hidden, gated)
        tensors = {name: value.float() for name, value in weights.items() if name != "mask_token"}  # of training
        tensors["pos_embed"] = interpolate_positions(tensors["pos_embed"], PATCHES_PER_SIDE)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:  # names or shapes of tensors
            raise ValueError(f"{source} must hold the weights of DINOv2, but they do not fit: {error}") from error
        return network.eval()

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)  # (n, t - 1, f)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1)  # (n, t, f)
        return self.norm(self.blocks(tokens + self.pos_embed))[:, 0]  # (n, f)


def interpolate_positions(positions: Tensor, patches_per_side: int) -> Tensor:
    """Positions (1, 1 + side^2, f) of the published images (518 pixels, 37 patches) for another number of patches."""
    side = math.isqrt(positions.shape[1] - 1)
    if side == patches_per_side:
        return positions
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, f, side, side)
    scale = (patches_per_side + POSITION_OFFSET) / side
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (n, t, 3, heads, 64)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind()  # (n, heads, t, 64) each
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class _Perceptron(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class _GatedPerceptron(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        gate, values = self.w12(tokens).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * values)


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma


class _Block(nn.Module):
    def __init__(self, width: int, mlp_width: int, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=NORM_EPSILON) for _ in range(2))
        self.attn = _Attention(width)
        self.mlp = (_GatedPerceptron if gated else _Perceptron)(width, mlp_width)
        self.ls1, self.ls2 = _LayerScale(width), _LayerScale(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))

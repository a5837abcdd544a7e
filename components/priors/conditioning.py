"""How a lower prior reads the code maps of the levels above it.

Shapes: n images, h w sides of this level's map, a b sides of the nearest map above, c hidden channels, r residual
channels. The convolutions take (n, c, a, b) views of channels-last memory.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from components.config import require
from components.priors.recompute import run_checkpointed


class MapSpec(NamedTuple):
    """Size of one level's code map."""

    height: int
    width: int
    codebook_size: int


def side_ratio(lower: tuple[int, int], upper: tuple[int, int]) -> int:
    """Positions of the map `lower` (height, width) along a side of one position of `upper`; ValueError when uneven."""
    ratio = lower[0] // upper[0]
    fits = ratio >= 1 and ratio & (ratio - 1) == 0 and (ratio * upper[0], ratio * upper[1]) == tuple(lower)
    require(
        fits,
        "a code map's sides must be one power of two times those of each map above it, got "
        f"{lower[0]}x{lower[1]} below {upper[0]}x{upper[1]}: list the maps above coarsest first, check the strides",
    )
    return ratio


class ConditioningBlock(nn.Module):
    """Unmasked residual block: the maps above are complete before the first code of this level is drawn."""

    def __init__(self, hidden: int, residual_hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Conv2d(hidden, residual_hidden, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Conv2d(residual_hidden, hidden, 1)

    def forward(self, x: Tensor) -> Tensor:  # (n, c, a, b) -> (n, c, a, b)
        return x + self.out(self.dropout(F.relu(self.inner(F.relu(x)))))


class ConditioningStack(nn.Module):
    """Embeds every code map above, refines their sum at the nearest map's resolution, and upsamples to this level's.

    The residual blocks run before the upsampling, because each doubling multiplies the positions by four.
    """

    def __init__(
        self,
        above: Sequence[MapSpec],
        shape: tuple[int, int],
        *,
        hidden: int,
        residual_hidden: int,
        layers: int,
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        nearest = above[-1][:2]
        self.repeats = [side_ratio(nearest, spec[:2]) for spec in above]
        doublings = side_ratio(shape, nearest).bit_length() - 1
        self.embeddings = nn.ModuleList(nn.Embedding(spec.codebook_size, hidden) for spec in above)
        self.blocks = nn.Sequential(
            *(ConditioningBlock(hidden, residual_hidden, dropout=dropout) for _ in range(layers))
        )
        self.upsampling = nn.Sequential(*(nn.ConvTranspose2d(hidden, hidden, 4, 2, 1) for _ in range(doublings)))

    def forward(self, above: Sequence[Tensor]) -> Tensor:
        """Code maps above, coarsest first -> (n, h, w, c)."""
        embedded = [
            embedding(codes).repeat_interleave(repeat, 1).repeat_interleave(repeat, 2)  # n a b c
            for embedding, codes, repeat in zip(self.embeddings, above, self.repeats, strict=True)
        ]
        x = sum(embedded[1:], embedded[0]).permute(0, 3, 1, 2)  # n c a b
        for block in self.blocks:
            x = run_checkpointed(block, x, recompute=self.recompute)
        return self.upsampling(x).permute(0, 2, 3, 1)  # n h w c

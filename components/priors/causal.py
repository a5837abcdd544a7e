"""The two causal stacks of the gated PixelCNN (van den Oord et al. 2016, figure 2).

Causality comes from shifting the embedded codes once, before the first block: the vertical stack starts from the row
above, the horizontal stack from the pixel to the left. Every later filter may then include the present position, so no
mask is needed: kernels are cropped to the past, and their input is padded on that side.

Shapes: n images, h w sides of the map, c hidden channels, r residual channels. Channels come last everywhere.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shift_down(x: Tensor) -> Tensor:
    """(n, h, w, c) -> the same shape: each row holds the row above it, the first row zeros."""
    return F.pad(x, (0, 0, 0, 0, 1, -1))


def shift_right(x: Tensor) -> Tensor:
    """(n, h, w, c) -> the same shape: each position holds its left neighbour, the first column zeros."""
    return F.pad(x, (0, 0, 1, -1))


def gate(x: Tensor) -> Tensor:
    """(..., 2r) -> (..., r): y = tanh(W_f*x + V_f^T h) . sigmoid(W_g*x + V_g^T h), van den Oord et al. 2016, eq. 4.

    `x` holds both sums, f first, so that one product computes them.
    """
    feature, weight = x.chunk(2, dim=-1)  # views: ... r each
    return torch.tanh(feature) * torch.sigmoid(weight)


class CausalConvolution(nn.Conv2d):
    """Filter over the present row and `above` rows above it, `left` columns to the left and `right` to the right."""

    def __init__(self, inputs: int, outputs: int, *, above: int, left: int, right: int) -> None:
        assert left >= right  # the convolution itself pads both sides by `right`, without a copy; F.pad adds the rest
        super().__init__(inputs, outputs, (above + 1, left + 1 + right), padding=(0, right), bias=False)
        self.margins = (0, 0, left - right, 0, above, 0)

    def forward(self, x: Tensor) -> Tensor:  # (n, h, w, inputs) -> (n, h, w, outputs)
        padded = F.pad(x, self.margins).permute(0, 3, 1, 2)  # n inputs above+h left-right+w
        return super().forward(padded).permute(0, 2, 3, 1)


class GatedBlock(nn.Module):
    """One layer of both stacks, each a residual: causal filter c -> 2r, gate, 1x1 back to c.

    The horizontal stack reads the vertical one through a 1x1, so it sees all rows above within reach: no blind spot.
    One product of the context enters both gates, and its bias is the only one in the block.
    """

    def __init__(self, hidden: int, residual_hidden: int, *, filter_size: int, dropout: float) -> None:
        super().__init__()
        reach = filter_size // 2
        self.context = nn.Linear(hidden, 2 * residual_hidden)
        self.vertical = CausalConvolution(hidden, 2 * residual_hidden, above=reach, left=reach, right=reach)
        self.vertical_out = nn.Linear(residual_hidden, hidden, bias=False)
        self.link = nn.Linear(hidden, 2 * residual_hidden, bias=False)
        self.horizontal = CausalConvolution(hidden, 2 * residual_hidden, above=0, left=reach, right=0)
        self.horizontal_out = nn.Linear(residual_hidden, hidden, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, v: Tensor, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Vertical and horizontal state (n, h, w, c), context (n, h, w, c) or (n, 1, 1, c) -> both states."""
        terms = self.context(context)  # n h w 2r, or n 1 1 2r
        v = v + self.vertical_out(self.dropout(gate(self.vertical(v) + terms)))
        x = x + self.horizontal_out(self.dropout(gate(self.horizontal(x) + self.link(v) + terms)))
        return v, x

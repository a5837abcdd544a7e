"""A prior's layers as the sampler computes them: weights as right-hand factors, inputs kept from step to step.

tanh(f) = 2 sigmoid(2 f) - 1, so with everything that adds to f doubled, one sigmoid serves both halves of a gate; what
is left of the gate comes out negated, and so do the weights that read it.

Shapes: n images, w columns of the map, p positions, c hidden channels, r residual channels, m filter_size // 2.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from components.priors.attention import CausalAttention
from components.priors.causal import GatedBlock

LAYER_NORM_EPSILON = 1e-5
"""As nn.LayerNorm has it."""


def double_feature_half(weight: Tensor) -> Tensor:
    """A copy of weights or biases (2r, ...) with the half that adds to f, the first, doubled."""
    copy = weight.detach().clone()
    copy[: len(copy) // 2].mul_(2)
    return copy


class GateSums(NamedTuple):
    """What goes into a gate, f's half doubled."""

    whole: Tensor
    """(..., 2r)."""
    feature: Tensor
    """Its first half, (..., r)."""
    weight: Tensor
    """Its second half."""

    @classmethod
    def of(cls, whole: Tensor) -> "GateSums":
        """With views of both halves."""
        return cls(whole, *whole.chunk(2, dim=-1))


def negated_gate_(sums: GateSums, out: Tensor) -> None:
    """Minus the gate (..., r) into `out`; the sums are lost."""
    sums.whole.sigmoid_()
    torch.addcmul(sums.weight, sums.feature, sums.weight, value=-2, out=out)


def shift_slots(places: Sequence[Tensor]) -> None:
    """Each place takes what the next one holds; the last keeps its own."""
    for place, following in pairwise(places):
        place.copy_(following)


class PackedLayer:
    """One gated block, and its vertical input's last rows."""

    def __init__(self, block: GatedBlock, batch: int, width: int) -> None:
        self.filter = double_feature_half(block.vertical.weight).contiguous(memory_format=torch.channels_last)
        taps = double_feature_half(block.horizontal.weight)[:, :, 0]  # 2r c m+1
        self.taps = taps.permute(2, 1, 0).contiguous()  # m+1 c 2r
        self.horizontal = self.taps.flatten(0, 1)
        self.link = double_feature_half(block.link.weight).t().contiguous()
        outs = (block.vertical_out, block.horizontal_out)
        self.vertical_out, self.horizontal_out = (linear.weight.detach().t().neg().contiguous() for linear in outs)
        c, reach = block.link.in_features, self.taps.shape[0] - 1
        self.reach = reach
        self.above = self.link.new_zeros(batch, reach + 1, width + 2 * reach, c)  # newest last, zeros at the sides

    def reset(self) -> None:
        self.above.zero_()

    def vertical(self, row: Tensor) -> Tensor:
        """Take in the next row (n, w, c) -> what the rows so far give to the vertical gate, doubled (n, w, 2r)."""
        shift_slots(self.above.unbind(1))
        self.above[:, -1, self.reach : -self.reach].copy_(row)
        return F.conv2d(self.above.permute(0, 3, 1, 2), self.filter).permute(0, 2, 3, 1)[:, 0]


class _RowViews(NamedTuple):
    """Views that a query of one row of the map needs; s slots."""

    keys: Tensor
    """(n heads, c/heads, s)."""
    values: Tensor
    """(n heads, s, c/heads)."""
    scores: Tensor
    """(n heads, 1, s)."""
    last: Tensor
    """The scores of the row's own slots, (n heads, 1, w)."""


class PackedAttention:
    """One attention layer with its keys and values of all positions so far, slot 0 the start's.

    Keys and values lie head by head, so that a head's product reads memory in order. In row i a query is compared with
    the slots 0 .. (i + 1) w - 1, of which a mask hides those that are not written yet: no shape changes within a row.
    """

    def __init__(self, layer: CausalAttention, codes: Tensor, batch: int, shape: tuple[int, int]) -> None:
        (height, self.width), c, self.heads = shape, layer.out.in_features, layer.heads
        scale = torch.ones(3 * c, dtype=codes.dtype, device=codes.device)
        scale[:c] = (c // layer.heads) ** -0.5  # of the scores, here on the query; and LayerNorm's on all of them
        weight = layer.project.weight * scale[:, None] * math.sqrt(c)
        self.project, self.bias = weight.t().contiguous(), layer.project.bias * scale
        self.codes = codes @ layer.codes.weight.t()  # k 2c: what each code adds to its position's key and value
        self.out, self.start = layer.out.weight.detach().t().contiguous(), layer.start.detach()
        new, slots = codes.new_zeros, height * self.width + 1
        self.keys = new(batch, self.heads, c // self.heads, slots)
        self.values = new(batch, self.heads, slots, c // self.heads)
        scores = new(batch * self.heads * slots)
        self.rows = [self._row(scores, (row + 1) * self.width) for row in range(height)]
        hidden = torch.ones(self.width, self.width, device=codes.device).triu(1) > 0
        self.masks = new(hidden.shape).masked_fill_(hidden, -torch.inf)
        self.mask, self.mixed = new(1, self.width), new(batch * self.heads, 1, c // self.heads)
        self.normed, self.mean, self.norm = new(batch, c), new(batch, 1), new(batch, 1)
        self.share = codes.new_tensor(1 / c)
        self.tiny = new(1).fill_(math.sqrt(c * LAYER_NORM_EPSILON))
        self.projected, self.added = new(batch, 3 * c), new(batch, 2 * c)
        query, self.pairs = self.projected.split((c, 2 * c), dim=-1)
        self.query, self.queries = query.view(batch, self.heads, -1), torch.empty_like(self.mixed)
        self.key, self.value = self.pairs.view(batch, 2, self.heads, -1).unbind(1)  # n heads c/heads

    def _row(self, scores: Tensor, length: int) -> "_RowViews":
        keys, values = self.keys.flatten(0, 1)[:, :, :length], self.values.flatten(0, 1)[:, :length]
        scores = scores[: len(keys) * length].view(-1, 1, length)
        return _RowViews(keys, values, scores, scores[:, :, -self.width :])

    def reset(self) -> None:
        """Forget all positions. What is hidden must be finite too: 0 times NaN is NaN."""
        self.keys.zero_()
        self.values.zero_()
        key, value = self.start.view(2, self.heads, -1)
        self.keys[..., 0], self.values[:, :, 0] = key, value

    def step(self, x: Tensor, row: int, column: Tensor) -> None:
        """Add to the state (n, c) of a position in `row`, in place, what it reads from all slots before its own."""
        torch.sum(x, dim=1, keepdim=True, out=self.mean)
        torch.sub(x, self.mean.mul_(self.share), out=self.normed)
        torch.linalg.vector_norm(self.normed, dim=1, keepdim=True, out=self.norm)
        self.normed.div_(torch.hypot(self.norm, self.tiny, out=self.norm))  # LayerNorm but for the factor sqrt(c)
        torch.addmm(self.bias, self.normed, self.project, out=self.projected)
        self.queries.view(self.query.shape).copy_(self.query)
        keys, values, scores, last = self.rows[row]
        torch.bmm(self.queries, keys, out=scores)
        last.add_(torch.index_select(self.masks, 0, column, out=self.mask))
        torch.softmax(scores, dim=2, out=scores)
        torch.bmm(scores, values, out=self.mixed)
        x.addmm_(self.mixed.view(x.shape), self.out)

    def remember(self, codes: Tensor, slot: Tensor) -> None:
        """Write `slot` of the position of the last step, once its codes (n,) are drawn."""
        self.pairs.add_(torch.index_select(self.codes, 0, codes, out=self.added))
        self.keys.index_copy_(3, slot, self.key[..., None])
        self.values.index_copy_(2, slot, self.value[:, :, None])

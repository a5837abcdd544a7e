"""A prior's layers as the sampler computes them: transposed weights, and inputs stored from step to step.

One sigmoid serves both halves of a gate tanh(f) * sigmoid(g). Since tanh(f) = 2 sigmoid(2f) - 1, every weight and bias
that adds to f is doubled once, when it is packed; then

    -gate = sigmoid(g) - 2 * sigmoid(2f) * sigmoid(g)

is one fused operation, and the weights that read the gate are negated once to cancel the sign.

Shapes: n images, h w sides of the map, p = h * w positions, c hidden channels, r residual channels,
m = filter_size // 2, k codebook size, d = c / heads channels per head, s slots of keys and values.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.priors.attention import CausalAttention
from components.priors.causal import GatedBlock
from components.priors.model import OutputBlock

LAYER_NORM_EPSILON = 1e-5
"""Default of nn.LayerNorm."""


def double_feature_half(weight: Tensor) -> Tensor:
    """A copy of weights or biases (2r, ...) whose first half, the one that adds to f, is doubled."""
    copy = weight.detach().clone()  # 2r ...
    copy[: len(copy) // 2].mul_(2)  # exact: a factor of 2 rounds nothing
    return copy


class GateSums(NamedTuple):
    """The sums that enter a gate, with the half of f doubled."""

    whole: Tensor
    """(..., 2r)."""
    feature: Tensor
    """View of the first half, 2f: (..., r)."""
    weight: Tensor
    """View of the second half, g: (..., r)."""

    @classmethod
    def of(cls, whole: Tensor) -> "GateSums":
        """The sums `whole` (..., 2r) and views of both halves."""
        return cls(whole, *whole.chunk(2, dim=-1))


def negated_gate_(sums: GateSums, out: Tensor) -> None:
    """Write minus the gate (..., r) into `out`; overwrites the sums."""
    sums.whole.sigmoid_()  # ... 2r
    torch.addcmul(sums.weight, sums.feature, sums.weight, value=-2, out=out)  # ... r


def shift_slots(slots: Sequence[Tensor]) -> None:
    """Copy each slot's successor into it; the last slot stays as it is."""
    for slot, successor in pairwise(slots):
        slot.copy_(successor)


class PackedLayer:
    """Weights of one gated block, and the last m + 1 rows that its vertical filter reads."""

    def __init__(self, block: GatedBlock, batch: int, width: int) -> None:
        vertical = double_feature_half(block.vertical.weight)  # 2r c m+1 2m+1
        self.filter = vertical.contiguous(memory_format=torch.channels_last)  # the layout of its input in `vertical`
        taps = double_feature_half(block.horizontal.weight)[:, :, 0]  # 2r c m+1: one matrix per column to the left
        self.taps = taps.permute(2, 1, 0).contiguous()  # m+1 c 2r
        self.horizontal = self.taps.flatten(0, 1)  # (m+1)c 2r: one product with the flattened window
        self.link = double_feature_half(block.link.weight).t().contiguous()  # c 2r
        outs = (block.vertical_out, block.horizontal_out)
        self.vertical_out, self.horizontal_out = (
            linear.weight.detach().t().neg().contiguous()  # r c, negated: it reads a negated gate
            for linear in outs
        )
        c, reach = block.link.in_features, self.taps.shape[0] - 1
        self.reach = reach  # m
        # The newest row is last. The m columns at either side stay zero, as the padding of the convolution.
        self.above = self.link.new_zeros(batch, reach + 1, width + 2 * reach, c)  # n m+1 w+2m c

    def reset(self) -> None:
        """Forget all rows: above the first row there are zeros."""
        self.above.zero_()

    def vertical(self, row: Tensor) -> Tensor:
        """Append the next row (n, w, c) -> what all rows so far add to the vertical gate, doubled: (n, w, 2r)."""
        shift_slots(self.above.unbind(1))  # m+1 slots of n w+2m c
        self.above[:, -1, self.reach : -self.reach].copy_(row)  # n w c
        sums = F.conv2d(self.above.permute(0, 3, 1, 2), self.filter)  # n 2r 1 w
        return sums.permute(0, 2, 3, 1)[:, 0]  # n w 2r


def pack_output(block: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Inner weight (c, r), inner bias (r,) and outer weight (r, c) of an output block."""
    assert isinstance(block, OutputBlock)
    return block.inner.weight.t().contiguous(), block.inner.bias.clone(), block.out.weight.t().contiguous()


class _RowViews(NamedTuple):
    """Views that a query in one row of the map needs; s slots, those of this row and of all rows above."""

    keys: Tensor
    """(n heads, d, s)."""
    values: Tensor
    """(n heads, s, d)."""
    scores: Tensor
    """(n heads, 1, s)."""
    row_scores: Tensor
    """The last w of the scores, which a mask hides in part: (n heads, 1, w)."""


class PackedAttention:
    """Weights of one attention layer, and its keys and values for all positions so far.

    Slot 0 is the learned start's, slot q + 1 that of position q. Keys and values are stored per head, so that the
    product of a head reads contiguous memory. A query in row i is compared with the slots 0 .. (i + 1) w - 1, and a
    mask hides those that are not written yet: no shape changes within a row, so one CUDA graph serves all its pixels.
    """

    def __init__(self, layer: CausalAttention, codes: Tensor, batch: int, shape: tuple[int, int]) -> None:
        """`codes` are the prior's embedded codes (k, c), `batch` is n, `shape` the map's (height, width)."""
        (height, self.width), c, self.heads = shape, layer.out.in_features, layer.heads
        self._pack(layer, codes, c)
        new, slots = codes.new_zeros, height * self.width + 1
        self.keys = new(batch, self.heads, c // self.heads, slots)  # n heads d p+1
        self.values = new(batch, self.heads, slots, c // self.heads)  # n heads p+1 d
        scores = new(batch * self.heads * slots)  # memory that the views of all rows share
        self.rows = [self._row(scores, (row + 1) * self.width) for row in range(height)]
        hidden = torch.ones(self.width, self.width, device=codes.device).triu(1) > 0  # w w: true right of the diagonal
        # Of the w slots that are new in a row, column j reads the first j + 1: the last of these is its predecessor's.
        self.masks = new(hidden.shape).masked_fill_(hidden, -torch.inf)  # w w, a row per column of the map
        self.mask, self.mixed = new(1, self.width), new(batch * self.heads, 1, c // self.heads)  # 1 w; n*heads 1 d
        self.normed, self.mean, self.norm = new(batch, c), new(batch, 1), new(batch, 1)  # n c; n 1; n 1
        self.projected, self.added = new(batch, 3 * c), new(batch, 2 * c)  # n 3c; n 2c
        query, self.pairs = self.projected.split((c, 2 * c), dim=-1)  # views: n c; n 2c
        self.query = query.view(batch, self.heads, -1)  # view: n heads d
        self.queries = torch.empty_like(self.mixed)  # n*heads 1 d, contiguous
        self.key, self.value = self.pairs.view(batch, 2, self.heads, -1).unbind(1)  # views: n heads d each

    def _pack(self, layer: CausalAttention, codes: Tensor, c: int) -> None:
        """Fold constant factors into the weights.

        1 / sqrt(d) of the scores goes into the query, and the sqrt(c) that `step` leaves out of LayerNorm into all.
        """
        scale = torch.ones(3 * c, dtype=codes.dtype, device=codes.device)  # 3c
        scale[:c] = (c // layer.heads) ** -0.5
        weight = layer.project.weight * scale[:, None] * math.sqrt(c)  # 3c c
        self.project, self.bias = weight.t().contiguous(), layer.project.bias * scale  # c 3c; 3c
        self.codes = codes @ layer.codes.weight.t()  # k 2c: what each code adds to its position's key and value
        self.out, self.start = layer.out.weight.detach().t().contiguous(), layer.start.detach()  # c c; 2c
        # Tensors, because arithmetic with Python numbers allocates one at each call.
        self.reciprocal = codes.new_tensor(1 / c)  # scalar
        self.epsilon = codes.new_zeros(1).fill_(math.sqrt(c * LAYER_NORM_EPSILON))  # 1

    def _row(self, scores: Tensor, length: int) -> "_RowViews":
        """Views for a row whose queries are compared with the first `length` slots."""
        keys = self.keys.flatten(0, 1)[:, :, :length]  # n*heads d s
        values = self.values.flatten(0, 1)[:, :length]  # n*heads s d
        scores = scores[: len(keys) * length].view(-1, 1, length)  # n*heads 1 s
        return _RowViews(keys, values, scores, scores[:, :, -self.width :])

    def reset(self) -> None:
        """Forget all positions. Hidden slots must be finite too, because 0 times NaN is NaN."""
        self.keys.zero_()
        self.values.zero_()
        key, value = self.start.view(2, self.heads, -1)  # heads d each
        self.keys[..., 0], self.values[:, :, 0] = key, value

    def step(self, x: Tensor, row: int, column: Tensor) -> None:
        """Add to the state `x` (n, c) of the position (`row`, `column`), in place, what it reads from earlier slots.

        `column` is int64 (1,). Leaves the position's key and value, without its code's part, in `pairs`.
        """
        # LayerNorm without its factor sqrt(c): (x - mean) / sqrt(sum((x - mean)^2) + c * epsilon).
        torch.sum(x, dim=1, keepdim=True, out=self.mean)  # n 1
        torch.sub(x, self.mean.mul_(self.reciprocal), out=self.normed)  # n c
        torch.linalg.vector_norm(self.normed, dim=1, keepdim=True, out=self.norm)  # n 1
        self.normed.div_(torch.hypot(self.norm, self.epsilon, out=self.norm))  # n c
        torch.addmm(self.bias, self.normed, self.project, out=self.projected)  # n 3c: query, key, value
        self.queries.view(self.query.shape).copy_(self.query)  # n heads d
        keys, values, scores, row_scores = self.rows[row]
        torch.bmm(self.queries, keys, out=scores)  # n*heads 1 s
        row_scores.add_(torch.index_select(self.masks, 0, column, out=self.mask))  # n*heads 1 w
        torch.softmax(scores, dim=2, out=scores)  # n*heads 1 s
        torch.bmm(scores, values, out=self.mixed)  # n*heads 1 d
        x.addmm_(self.mixed.view(x.shape), self.out)  # n c

    def remember(self, codes: Tensor, slot: Tensor) -> None:
        """Write the last step's key and value into `slot`, int64 (1,), once the position's codes (n,) are drawn."""
        self.pairs.add_(torch.index_select(self.codes, 0, codes, out=self.added))  # n 2c
        self.keys.index_copy_(3, slot, self.key[..., None])  # n heads d 1
        self.values.index_copy_(2, slot, self.value[:, :, None])  # n heads 1 d

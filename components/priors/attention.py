"""Causal self-attention over the raster order of a code map.

Shapes: n images, h w sides of the map, p = h * w positions in raster order, c hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalAttention(nn.Module):
    """Multi-head attention, as a residual, of each position over all strictly earlier ones.

    A position's key and value are computed from its state and its own code, so it must not read itself: slot 0 holds a
    learned start key and value, slot q + 1 those of position q, and position q reads slots 0..q. The first position
    reads the start alone. With this shift by one slot, ordinary causal attention is correct.

    `dropout` is the fraction of attention weights dropped in training, after the softmax.
    """

    def __init__(self, hidden: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.project = nn.Linear(hidden, 3 * hidden)
        self.codes = nn.Linear(hidden, 2 * hidden, bias=False)
        self.start = nn.Parameter(torch.randn(2 * hidden) * hidden**-0.5)
        self.out = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """State of the horizontal stack and embedded codes, both (n, h, w, c) -> (n, h, w, c)."""
        n, h, w, c = x.shape
        query, pairs = self.project(self.norm(x)).split((c, 2 * c), dim=-1)  # n h w c; n h w 2c: keys and values
        pairs = (pairs + self.codes(embedded)).flatten(1, 2)  # n p 2c
        start = self.start.to(pairs.dtype).expand(n, 1, -1)  # n 1 2c
        key, value = torch.cat((start, pairs[:, :-1]), dim=1).chunk(2, dim=-1)  # n p c each; no position reads slot p
        parts = (query.flatten(1, 2), key, value)
        # n heads p c/heads each
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(  # n heads p c/heads
            query, key, value, dropout_p=dropout, is_causal=True
        )
        return x + self.out(mixed.transpose(1, 2).reshape(n, h, w, c))

"""Exact incremental sampling from a prior: each position is computed once, from kept inputs, never recomputed.

Once a row's codes are known, the vertical stack takes the next row, all columns at once; the horizontal stack then goes
pixel by pixel. Every product of the plain forward pass is made here once for each position, with the same operands.

Shapes: n images (always the full preallocated batch), h w sides of the map, c hidden channels, r residual channels,
m filter_size // 2, t = (m + 1) * filter_size taps of the vertical filter, l layers, k codebook size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.config import require
from components.priors.attention import CausalAttention
from components.priors.causal import GatedBlock, gate
from components.priors.model import OutputBlock, Prior
from components.priors.noise import gumbel


class _Attention:
    """One attention layer with its keys and values of all positions so far, slot 0 the start's."""

    def __init__(self, layer: CausalAttention, codes: Tensor, batch: int, positions: int) -> None:
        c = layer.out.in_features
        weight, bias = layer.project.weight.split((c, 2 * c)), layer.project.bias.split((c, 2 * c))
        self.query_weight, self.pairs_weight = (part.t().contiguous() for part in weight)
        self.query_bias, self.pairs_bias = (part.clone() for part in bias)
        self.codes = codes @ layer.codes.weight.t()  # k 2c: what each code adds to its position's key and value
        self.out = layer.out.weight.t().contiguous()
        self.start = layer.start.clone()
        self.query = codes.new_empty(batch, c)
        self.pairs = codes.new_empty(batch, positions + 1, 2 * c)
        keys, values = self.pairs.unflatten(-1, (2, layer.heads, -1)).permute(2, 0, 3, 1, 4)  # n heads slots c/heads
        self.keys, self.values = keys, values
        self.heads = self.query.unflatten(-1, (layer.heads, 1, -1))  # n heads 1 c/heads

    def reset(self) -> None:
        self.pairs[:, 0] = self.start

    def step(self, x: Tensor, position: int) -> None:
        """Add to the state (n, c) of `position`, in place, what it reads from slots 0..position."""
        normed = F.layer_norm(x, x.shape[-1:])
        torch.addmm(self.query_bias, normed, self.query_weight, out=self.query)
        torch.addmm(self.pairs_bias, normed, self.pairs_weight, out=self.pairs[:, position + 1])
        seen = slice(0, position + 1)
        mixed = F.scaled_dot_product_attention(self.heads, self.keys[:, :, seen], self.values[:, :, seen])
        x.addmm_(mixed.reshape(x.shape), self.out)

    def remember(self, codes: Tensor, position: int) -> None:
        """Complete the slot of `position` once its codes (n,) are drawn."""
        self.pairs[:, position + 1].add_(self.codes[codes])


class _Layer:
    """One gated block with the last inputs of both its filters."""

    def __init__(self, block: GatedBlock, attention: _Attention | None, batch: int, width: int) -> None:
        c, r = block.link.in_features, block.horizontal_out.in_features
        taps = [convolution.weight.permute(2, 3, 1, 0) for convolution in (block.vertical, block.horizontal)]
        self.vertical, self.horizontal = (weight.reshape(-1, 2 * r).contiguous() for weight in taps)  # tc 2r, (m+1)c 2r
        linears = (block.vertical_out, block.link, block.horizontal_out)
        self.vertical_out, self.link, self.horizontal_out = (linear.weight.t().contiguous() for linear in linears)
        self.attention = attention
        self.reach = reach = block.horizontal.kernel_size[1] - 1
        new = self.link.new_empty
        self.above = new(batch, reach + 1, width + 2 * reach, c)  # the last rows of the vertical state, newest last
        image, row, column, _ = self.above.stride()
        self.patches = self.above.as_strided((batch, width, reach + 1, (2 * reach + 1) * c), (image, column, row, 1))
        self.line = new(batch, width + reach, c)  # this row of the horizontal state
        self.states = self.line[:, reach:].unbind(1)  # w of (n, c)
        self.windows = [self.line[:, column : column + reach + 1].flatten(1) for column in range(width)]
        self.terms = new(batch, width, 2 * r)  # what the rows above and the context add to this row's gates
        self.columns = self.terms.unbind(1)

    def reset(self) -> None:
        self.above.zero_()
        self.line[:, : self.reach].zero_()
        if self.attention:
            self.attention.reset()

    def push(self, row: Tensor) -> None:
        """Take in the vertical state (n, w, c) of the next row."""
        for age in range(self.reach):
            self.above[:, age].copy_(self.above[:, age + 1])
        self.above[:, -1, self.reach : -self.reach].copy_(row)


class Sampler:
    """Draws code maps from `prior` for up to `batch` images at a time.

    It packs the prior's weights as they are now: make a new one after a further fit. Memory: a copy of the weights;
    m + 1 rows of the vertical and one of the horizontal state for each layer and image; all keys and values of each
    attention layer.
    """

    @torch.no_grad()
    def __init__(self, prior: Prior, batch: int) -> None:
        require(batch >= 1, f"batch must be at least 1, got {batch}")
        self.prior, self.batch = prior, batch
        (h, w), config = prior.shape, prior.config
        c, r, k = config.hidden, config.residual_hidden, prior.codebook_size
        self.codes = prior.codes.weight.clone()  # k c
        self.position = prior.rows[:, None] + prior.columns  # h w c
        self.layers = [self._pack(block, str(index)) for index, block in enumerate(prior.blocks)]
        context = torch.cat([block.get_parameter("context.weight") for block in prior.blocks])
        self.context_weight = context.t().contiguous()  # c l2r
        self.context_bias = torch.cat([block.get_parameter("context.bias") for block in prior.blocks])
        self.output = [_packed(block) for block in prior.output]
        self.logits_weight, self.logits_bias = prior.logits.weight.t().contiguous(), prior.logits.bias.clone()
        new = self.codes.new_empty
        self.map_context = new(batch, h, w, c) if prior.conditioning else new(batch, 1, 1, c)
        self.context = new(batch, self.map_context.shape[2], len(self.layers), 2 * r)
        self.row = new(batch, w, c)  # the vertical state of the present row, layer after layer
        self.unfolded = new(batch * w, self.layers[0].vertical.shape[0])
        self.row_sums, self.row_gated = new(batch * w, 2 * r), new(batch * w, r)
        self.sums, self.gated, self.hidden = new(batch, 2 * r), new(batch, r), new(batch, r)
        self.state, self.active = new(batch, c), new(batch, c)
        self.out = new(batch, k)

    def _pack(self, block: nn.Module, name: str) -> _Layer:
        assert isinstance(block, GatedBlock)
        height, width = self.prior.shape
        attention = None
        if name in self.prior.attention:
            layer = self.prior.attention[name]
            assert isinstance(layer, CausalAttention)
            attention = _Attention(layer, self.codes, self.batch, height * width)
        return _Layer(block, attention, self.batch, width)

    @torch.no_grad()
    def sample(self, labels: Tensor, above: Sequence[Tensor], seeds: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Labels (n,), maps above, seeds int64 (n,) -> codes int64 (n, h, w), n at most the preallocated batch.

        An image's codes depend on its own label, maps above and seed, not on its batch. Each is the argmax of
        logits / temperature + Gumbel noise, an exact draw from softmax(logits / temperature).
        """
        require(temperature > 0, f"temperature must be above 0, got {temperature}: small ones give the likeliest codes")
        integers = seeds.dtype == torch.int64 and seeds.shape == labels.shape
        require(
            integers,
            f"seeds must be int64 with one seed for each of the {len(labels)} labels, got {seeds.dtype} "
            f"{tuple(seeds.shape)}",
        )
        n, (height, width) = self._begin(labels, above), self.prior.shape
        seeds = F.pad(seeds.to(self.codes.device), (0, self.batch - n))
        codes = seeds.new_zeros(self.batch, height, width)
        for i in range(height):
            self._row(i)
            noise = self.noise(seeds, i).to(self.codes.dtype)
            for j in range(width):
                scores = self._pixel(i, j).div_(temperature).add_(noise[:, j])
                torch.argmax(scores, dim=-1, out=codes[:, i, j])
                self._write(i, j, codes[:, i, j])
            self._close(i, codes[:, i])
        return codes[:n]

    def noise(self, seeds: Tensor, row: int) -> Tensor:
        """The noise, float64 (n, w, k), that decides row `row` of the images with `seeds`."""
        width, size = self.prior.shape[1], self.prior.codebook_size
        return gumbel(seeds, level=len(self.prior.above), row=row, width=width, codebook_size=size)

    @torch.no_grad()
    def logits(self, codes: Tensor, labels: Tensor, above: Sequence[Tensor]) -> Tensor:
        """The prior's forward pass, computed the sampler's way: `codes` (n, h, w) are given instead of drawn."""
        n, (height, width) = self._begin(labels, above, codes), self.prior.shape
        codes = F.pad(codes, (0, 0, 0, 0, 0, self.batch - n))
        logits = self.codes.new_empty(*codes.shape, self.prior.codebook_size)
        for i in range(height):
            self._row(i)
            for j in range(width):
                logits[:, i, j] = self._pixel(i, j)
                self._write(i, j, codes[:, i, j])
            self._close(i, codes[:, i])
        return logits[:n]

    def _begin(self, labels: Tensor, above: Sequence[Tensor], codes: Tensor | None = None) -> int:
        """Forget the last images and compute what is fixed for the new ones; images past their number are padding."""
        self.prior.check(labels, above, codes)
        n = len(labels)
        require(n <= self.batch, f"at most batch={self.batch} images fit, got {n}: split them or make a larger Sampler")
        for layer in self.layers:
            layer.reset()
        self.map_context.zero_()
        self.map_context[:n] = self.prior.context(labels, above)
        if self.prior.conditioning is None:
            self._contexts(0)
        self.row.copy_(self.position[0])
        return n

    def _contexts(self, i: int) -> None:
        """What the context adds to every gate of every layer, for row `i` (or for all rows alike)."""
        out = self.context.view(-1, self.context_bias.shape[0])
        torch.addmm(self.context_bias, self.map_context[:, i].flatten(0, 1), self.context_weight, out=out)

    def _row(self, i: int) -> None:
        """Run the vertical stack over row `i` and prepare the horizontal stack's lines."""
        if self.prior.conditioning is not None:
            self._contexts(i)
        row = self.row.view(-1, self.row.shape[-1])
        for index, layer in enumerate(self.layers):
            layer.push(self.row)
            self.unfolded.view(layer.patches.shape).copy_(layer.patches)
            torch.mm(self.unfolded, layer.vertical, out=self.row_sums)
            self.row_sums.view(layer.terms.shape).add_(self.context[:, :, index])
            gate(self.row_sums, out=self.row_gated)
            row.addmm_(self.row_gated, layer.vertical_out)
            torch.mm(row, layer.link, out=layer.terms.view(self.row_sums.shape))
            layer.terms.add_(self.context[:, :, index])
        first = self.layers[0]
        first.line[:, first.reach :] = self.position[i]

    def _pixel(self, i: int, j: int) -> Tensor:
        """Run the horizontal stack and the output over position (i, j) -> logits (n, k), kept until the next call."""
        following = [layer.states[j] for layer in self.layers[1:]] + [self.state]
        for layer, state in zip(self.layers, following, strict=True):
            torch.addmm(layer.columns[j], layer.windows[j], layer.horizontal, out=self.sums)
            gate(self.sums, out=self.gated)
            torch.addmm(layer.states[j], self.gated, layer.horizontal_out, out=state)
            if layer.attention:
                layer.attention.step(state, i * self.prior.shape[1] + j)
        for inner, bias, outer in self.output:
            torch.clamp_min(self.state, 0, out=self.active)
            torch.addmm(bias, self.active, inner, out=self.hidden).relu_()
            self.state.addmm_(self.hidden, outer)
        return torch.addmm(self.logits_bias, self.state.relu_(), self.logits_weight, out=self.out)

    def _write(self, i: int, j: int, codes: Tensor) -> None:
        """Take in the codes (n,) of position (i, j)."""
        width = self.prior.shape[1]
        if j + 1 < width:
            self.layers[0].states[j + 1].add_(self.codes[codes])
        for layer in self.layers:
            if layer.attention:
                layer.attention.remember(codes, i * width + j)

    def _close(self, i: int, codes: Tensor) -> None:
        """Take in the codes (n, w) of row `i` as the vertical stack's next row."""
        if i + 1 < self.prior.shape[0]:
            torch.add(self.codes[codes], self.position[i + 1], out=self.row)


def _packed(block: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of an output block as right-hand factors."""
    assert isinstance(block, OutputBlock)
    return block.inner.weight.t().contiguous(), block.inner.bias.clone(), block.out.weight.t().contiguous()

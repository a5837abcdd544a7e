"""Exact incremental sampling from a prior: each position is computed once, from stored inputs, never recomputed.

Once a row's codes are known, the vertical stack takes the next row, all columns at once; the horizontal stack then goes
pixel by pixel. Both work on tensors allocated once, with every index on the device, so that a GPU replays them as
graphs. Every product of the plain forward pass is made here once for each position, with the same operands, except for
the first horizontal filter: its inputs are embedded codes, so a sum of table rows replaces the product.

Shapes, in the comments at the ends of lines: n images (always the full preallocated batch; 2b under guidance, each
image with its class and then each without), b images drawn, h w sides of the map, c hidden channels, r residual
channels, m = filter_size // 2, l layers, k codebook size. A 1 in the place of h or w is the present row or column.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from components.config import require
from components.priors.attention import CausalAttention
from components.priors.causal import GatedBlock
from components.priors.config import AS_FITTED, SamplingConfig
from components.priors.logit_filter import LogitFilter
from components.priors.model import Prior
from components.priors.noise import gumbel_noise
from components.priors.replay import replay_graphs
from components.priors.sampler_layers import (
    GateSums,
    PackedAttention,
    PackedLayer,
    double_feature_half,
    negated_gate_,
    pack_output,
    shift_slots,
)


class Sampler:
    """Draws code maps from `prior` for up to `batch` images at a time, as `sampling` says.

    It packs the prior's weights as they are now: make a new one after a further fit. Memory: a copy of the weights;
    m + 1 rows of the vertical and w + m + 1 positions of the horizontal state for each layer and image; all keys and
    values of each attention layer. Raises ValueError for guidance of a prior that does not know 'no class'.
    """

    @torch.no_grad()
    def __init__(self, prior: Prior, batch: int, sampling: SamplingConfig = AS_FITTED) -> None:
        require(batch >= 1, f"batch must be at least 1, got {batch}")
        _check_guidance(prior, sampling)
        self.prior, self.batch, self.sampling = prior, batch, sampling
        self.guided = sampling.guidance != 1
        n = batch * (2 if self.guided else 1)
        self._pack(prior, n)
        self._allocate_rows(prior, n)
        self._allocate_pixel(prior, n)
        # Attention reads more slots in each row; without attention one graph serves the pixels of all rows.
        pixels = [partial(self._run_pixel, row) for row in range(prior.shape[0] if self.attention else 1)]
        self._next_row, *self._next_pixel = replay_graphs([self._run_row, *pixels], self.codes.device, self._reset)

    def _pack(self, prior: Prior, n: int) -> None:
        """Copy the weights into the form that the steps read; code k stands for 'outside of the map'."""
        width, first = prior.shape[1], prior.blocks[0]
        blocks = [block for block in prior.blocks if isinstance(block, GatedBlock)]
        self.layers = [PackedLayer(block, n, width) for block in blocks]
        self.attention = {
            int(name): PackedAttention(layer, prior.codes.weight, n, prior.shape)
            for name, layer in prior.attention.items()
            if isinstance(layer, CausalAttention)
        }
        self.codes = F.pad(prior.codes.weight, (0, 0, 0, 1))  # k+1 c: code k is zero, as the padding of a shift
        # Entry t is what a code adds to the first horizontal filter at the position t + 1 to its right.
        taps = [self.codes @ tap for tap in self.layers[0].taps.flip(0)]  # m+1 of k+1 2r
        self.table = torch.cat([self.codes, *taps], dim=1)  # k+1 c+(m+1)2r
        self.position = prior.rows[:, None] + prior.columns  # h w c
        assert isinstance(first, GatedBlock)
        self.first_terms = first.horizontal(self.position[None])[0]  # h w 2r: what positions add to that filter
        self.first_terms[..., : self.first_terms.shape[-1] // 2].mul_(2)  # the half of f, as in all packed weights
        context_weight = torch.cat([double_feature_half(block.context.weight) for block in blocks])  # l*2r c
        self.context_weight = context_weight.t().contiguous()  # c l*2r
        self.context_bias = torch.cat([double_feature_half(block.context.bias) for block in blocks])  # l*2r
        self.output = [pack_output(block) for block in prior.output]
        self.logits_weight = prior.logits.weight.t().contiguous()  # c k
        self.logits_bias = prior.logits.bias.clone()  # k

    def _allocate_rows(self, prior: Prior, n: int) -> None:
        """Allocate what `_run_row` writes, and the inputs of a run."""
        (h, w), c, k, layers = prior.shape, prior.architecture.hidden, prior.codebook_size, len(self.layers)
        r = prior.architecture.residual_hidden
        new, index = self.codes.new_zeros, partial(self.codes.new_zeros, dtype=torch.int64)
        self.row_index, self.column, self.slot = index(1), index(1), index(1)  # 1 each; slot = position + 1
        self.seeds = index(self.batch)  # b
        self.map_context = new(n, h, w, c) if prior.conditioning else new(n, 1, 1, c)  # the class, and the maps above
        self.row_context = new(n, 1, self.map_context.shape[2], c)  # n 1 w c, or n 1 1 c
        self.context = new(n, self.map_context.shape[2], layers, 2 * r)  # n w l 2r, or n 1 l 2r: added to every gate
        self.row_state = new(n, w, c)  # n w c: the vertical state, layer after layer
        self.row_position = new(1, w, c)  # 1 w c
        self.gated_row = new(n, w, r)  # n w r
        self.first_row_terms = new(1, w, 2 * r)  # 1 w 2r: the present row of first_terms
        self.terms = new(layers, n, w, 2 * r)  # l n w 2r: rows above, context and positions, for horizontal gates
        self.noise_row = new(self.batch, w, k)  # b w k
        self.given_row, self.row_codes = index(self.batch, w), index(n, w)  # b w, -1 where free; n w

    def _allocate_pixel(self, prior: Prior, n: int) -> None:
        """Allocate what `_run_pixel` writes, with the views that it needs: making a view costs time at each pixel."""
        c, k, layers = prior.architecture.hidden, prior.codebook_size, len(self.layers)
        r, window = prior.architecture.residual_hidden, self.layers[0].reach + 1
        new, index = self.codes.new_zeros, partial(self.codes.new_zeros, dtype=torch.int64)
        self.sums = new(layers, n, 1, 2 * r)  # l n 1 2r: what enters the gates
        self.gates = [GateSums.of(sums) for sums in self.sums[:, :, 0].unbind(0)]  # l views of n 2r
        self.windows = new(layers, n, window, c)  # l n m+1 c: the last inputs of each horizontal filter but the first
        self.window_slots = self.windows.unbind(2)  # m+1 views of l n c
        self.filter_inputs = self.windows.flatten(2).unbind(0)  # l views of n (m+1)c
        # The state that enters each layer is the last slot of its window; the one after the last layer is n c.
        self.states = [*self.window_slots[-1].unbind(0), new(n, c)]  # l+1 of n c
        pending = new(n, window, 2 * r)  # n m+1 2r: what codes so far add to the first filter at the next positions
        self.pending = pending.unbind(1)  # m+1 views of n 2r
        self.table_rows = self.table.new_zeros(n, self.table.shape[1])  # n c+(m+1)2r: the table at the last codes
        self.embedded = self.table_rows[:, :c]  # view: n c
        self.taps = self.table_rows[:, c:].view(pending.shape).unbind(1)  # m+1 views of n 2r
        self.pixel_position = new(1, 1, c)  # 1 1 c
        self.flat_position = self.pixel_position[0]  # view: 1 c
        self.gated, self.inner, self.active = new(n, r), new(n, r), new(n, c)  # n r; n r; n c
        self.out, self.guided_out = new(n, k), new(self.batch, k)  # n k; b k
        # Without guidance both are the same b rows.
        self.with_class, self.without_class = self.out[: self.batch], self.out[-self.batch :]  # views: b k each
        self.pixel_noise = new(self.batch, 1, k)  # b 1 k
        self.flat_noise = self.pixel_noise[:, 0]  # view: b k
        self.logit_filter = LogitFilter(self.sampling, self.guided_out)
        self.given, self.drawn = index(self.batch, 1), index(self.batch)  # b 1; b
        self.flat_given, self.free = self.given[:, 0], self.drawn > 0  # view: b; b, bool
        self.code = index(n)  # n
        self.code_column, self.code_copies = self.code[:, None], self.code.split(self.batch)  # views: n 1; n / b of b

    @torch.no_grad()
    def sample(self, labels: Tensor, above: Sequence[Tensor], seeds: Tensor, *, given: Tensor | None = None) -> Tensor:
        """Labels (n,), maps above, seeds int64 (n,) -> codes int64 (n, h, w), n at most the preallocated batch.

        An image's codes depend on its own label, maps above and seed, not on its batch. Each is the argmax of the
        filtered logits + Gumbel noise, an exact draw from their softmax. Codes of `given` (n, h, w) other than -1 are
        taken as they are, and the others drawn after the given ones that come earlier in raster order.
        """
        require(
            seeds.dtype == torch.int64 and seeds.shape == labels.shape,
            f"seeds must be int64, one seed for each of {len(labels)} labels, got {seeds.dtype} {tuple(seeds.shape)}",
        )
        self._begin(labels, above, given)
        self.seeds[: len(seeds)] = seeds
        codes = torch.empty(len(labels), *self.prior.shape, dtype=torch.int64, device=self.codes.device)  # n h w
        # Invariant: before row i, row_codes holds the codes of row i - 1 (code k before the first row), row_index is i
        # and slot is i * w + 1. Before column j of row i, row_codes[:, :j] holds the codes of row i, column is j and
        # slot is i * w + j + 1.
        for i in range(self.prior.shape[0]):
            self._start_row(i, given)
            next_pixel = self._next_pixel[i if self.attention else 0]
            for _ in range(self.prior.shape[1]):
                next_pixel()
            codes[:, i] = self.row_codes[: len(labels)]  # n w
        return codes

    def noise(self, seeds: Tensor, row: int | Tensor) -> Tensor:
        """The noise, float64 (n, w, k), that decides row `row` of the images with `seeds`."""
        width, size = self.prior.shape[1], self.prior.codebook_size
        return gumbel_noise(seeds, level=len(self.prior.above), row=row, width=width, codebook_size=size)  # n w k

    @torch.no_grad()
    def logits(self, codes: Tensor, labels: Tensor, above: Sequence[Tensor]) -> Tensor:
        """Logits (n, h, w, k), guided as `sampling` says, by the sampler's own steps over given `codes` (n, h, w)."""
        self._begin(labels, above, codes)
        logits = self.codes.new_empty(*codes.shape, self.prior.codebook_size)  # n h w k
        for i in range(self.prior.shape[0]):
            self._start_row(i, codes)
            for j in range(self.prior.shape[1]):
                self._next_pixel[i if self.attention else 0]()
                logits[:, i, j] = self.guided_out[: len(codes)]  # n k
        return logits

    def _begin(self, labels: Tensor, above: Sequence[Tensor], given: Tensor | None) -> None:
        """Forget the last images and compute what is fixed for the new ones; images past their number are padding."""
        self.prior.check(labels, above)
        n = len(labels)
        require(n <= self.batch, f"at most batch={self.batch} images fit, got {n}: split them or make a larger Sampler")
        if given is not None:
            self.prior.check(labels, above, torch.where(given == -1, 0, given))  # n h w
        self._reset()
        self.map_context[:n] = self.prior.context(labels, above)  # n h w c, or n 1 1 c
        if self.guided:
            unconditional = torch.full_like(labels, self.prior.classes)  # n
            self.map_context[self.batch : self.batch + n] = self.prior.context(unconditional, above)
        if self.prior.conditioning is None:
            self._add_contexts(self.map_context)

    def _reset(self) -> None:
        """Back to before the first row of images that are all padding."""
        for layer in self.layers:
            layer.reset()
        for attention in self.attention.values():
            attention.reset()
        for zeroed in (self.row_index, self.column, self.map_context, self.seeds):
            zeroed.zero_()
        self.slot.fill_(1)
        self.row_codes.fill_(self.prior.codebook_size)
        self.given_row.fill_(-1)

    def _start_row(self, i: int, given: Tensor | None) -> None:
        self._next_row()
        if given is not None:
            self.given_row[: len(given)] = given[:, i]  # n w

    def _add_contexts(self, context: Tensor) -> None:
        """Compute what the context, (n, 1, w, c) of a row or (n, 1, 1, c) of all rows, adds to every layer's gates."""
        out = self.context.view(-1, self.context_bias.shape[0])  # n*w l*2r, or n l*2r
        torch.addmm(self.context_bias, context.view(-1, context.shape[-1]), self.context_weight, out=out)

    def _run_row(self) -> None:
        """Run the vertical stack over the next row, given the codes of the last, and prepare the horizontal stack's.

        The vertical state is computed before any code of the row is known, because it reads the rows above alone.
        """
        if self.prior.conditioning is not None:
            torch.index_select(self.map_context, 1, self.row_index, out=self.row_context)  # n 1 w c
            self._add_contexts(self.row_context)
        flat, gated = self.row_state.flatten(0, 1), self.gated_row.flatten(0, 1)  # views: n*w c; n*w r
        torch.index_select(self.codes, 0, self.row_codes.view(-1), out=flat)  # n*w c: the row above, shifted down
        torch.index_select(self.position, 0, self.row_index, out=self.row_position)  # 1 w c
        self.row_state.add_(self.row_position)  # n w c
        for index, layer in enumerate(self.layers):
            context = self.context[:, :, index]  # n w 2r, or n 1 2r
            sums = layer.vertical(self.row_state).add_(context)  # n w 2r
            negated_gate_(GateSums.of(sums), self.gated_row)  # n w r
            flat.addmm_(gated, layer.vertical_out)  # n*w c
            torch.mm(flat, layer.link, out=self.terms[index].flatten(0, 1))  # n*w 2r
            self.terms[index].add_(context)  # n w 2r
        torch.index_select(self.first_terms, 0, self.row_index, out=self.first_row_terms)  # 1 w 2r
        self.terms[0].add_(self.first_row_terms)  # n w 2r
        self.noise_row.copy_(self.noise(self.seeds, self.row_index))  # b w k, from float64
        # To the left of the first column there are zeros.
        for zeroed in (self.column, self.windows, *self.pending, self.table_rows):
            zeroed.zero_()
        self.row_index.add_(1)

    def _run_pixel(self, row: int) -> None:
        """Run the horizontal stack and the output over the next position of `row`, choose its codes, move on.

        `row` matters to attention alone: it says how many slots are read.
        """
        torch.index_select(self.terms, 2, self.column, out=self.sums)  # l n 1 2r
        self.gates[0].whole.add_(self.pending[0])  # n 2r: the first filter, from tables
        torch.index_select(self.row_position, 1, self.column, out=self.pixel_position)  # 1 1 c
        torch.add(self.embedded, self.flat_position, out=self.states[0])  # n c: the left neighbour's code
        for index, layer in enumerate(self.layers):
            sums, state = self.gates[index], self.states[index + 1]  # n 2r; n c, the state after this layer
            if index:
                sums.whole.addmm_(self.filter_inputs[index], layer.horizontal)  # n 2r
            negated_gate_(sums, self.gated)  # n r
            torch.addmm(self.states[index], self.gated, layer.horizontal_out, out=state)  # n c
            if index in self.attention:
                self.attention[index].step(state, row, self.column)  # n c
        for inner, bias, outer in self.output:
            torch.clamp_min(state, 0, out=self.active)  # n c
            torch.addmm(bias, self.active, inner, out=self.inner).relu_()  # n r
            state.addmm_(self.inner, outer)  # n c
        torch.addmm(self.logits_bias, state.relu_(), self.logits_weight, out=self.out)  # n k
        self._choose()
        self._advance()

    def _choose(self) -> None:
        """Fill `code` with the present position's codes, drawn or given."""
        # Guidance: without + guidance * (with - without). Without guidance both are the same, and so is the result.
        torch.lerp(self.without_class, self.with_class, self.sampling.guidance, out=self.guided_out)  # b k
        torch.index_select(self.noise_row, 1, self.column, out=self.pixel_noise)  # b 1 k
        self.logit_filter.draw(self.guided_out, self.flat_noise, self.drawn)  # b
        torch.index_select(self.given_row, 1, self.column, out=self.given)  # b 1
        torch.lt(self.flat_given, 0, out=self.free)  # b
        for code in self.code_copies:  # under guidance an image with and without its class takes the same code
            torch.where(self.free, self.drawn, self.flat_given, out=code)  # b

    def _advance(self) -> None:
        """Move on by one position: store what later positions read of the present codes."""
        self.row_codes.index_copy_(1, self.column, self.code_column)  # n 1
        for attention in self.attention.values():
            attention.remember(self.code, self.slot)
        shift_slots(self.window_slots)  # m+1 slots of l n c; the next pixel overwrites the last
        torch.index_select(self.table, 0, self.code, out=self.table_rows)  # n c+(m+1)2r
        # pending[t] belongs to the position t + 1 to the right of the present one, once shifted.
        shift_slots(self.pending)  # m+1 slots of n 2r
        self.pending[-1].zero_()
        for pending, tap in zip(self.pending, self.taps, strict=True):
            pending.add_(tap)  # n 2r
        self.column.add_(1)
        self.slot.add_(1)


def _check_guidance(prior: Prior, sampling: SamplingConfig) -> None:
    if sampling.guidance == 1:
        return
    classless = f"guidance must be 1 for a prior that was fitted without classes, got {sampling.guidance:g}"
    require(prior.classes > 0, classless)
    dropout = prior.architecture.label_dropout
    require(
        dropout > 0,
        "guidance other than 1 needs a prior that knows 'no class', fitted with label_dropout above 0, got "
        f"{dropout:g} and guidance {sampling.guidance:g}: fit it with label_dropout=0.1, or leave guidance at 1",
    )

"""Exact incremental sampling from a prior: each position is computed once, from kept inputs, never recomputed.

Once a row's codes are known, the vertical stack takes the next row, all columns at once; the horizontal stack then goes
pixel by pixel. Both are work on tensors that stay where they are, with every index on the device, so that a GPU replays
them as graphs. Every product of the plain forward pass is made here once for each position, with the same operands;
only the first horizontal filter is none, but a sum of rows of tables, because its inputs are embedded codes.

Shapes: n images (always the full preallocated batch; twice that under guidance, each image with its class and then each
without), h w sides of the map, c hidden channels, r residual channels, m filter_size // 2, l layers, k codebook size.
"""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.config import require
from components.priors.attention import CausalAttention
from components.priors.causal import GatedBlock
from components.priors.choice import AS_FITTED, SamplingConfig
from components.priors.chooser import LogitFilter
from components.priors.model import OutputBlock, Prior
from components.priors.noise import gumbel_noise
from components.priors.replay import replay_graphs
from components.priors.sampler_layers import (
    GateSums,
    PackedAttention,
    PackedLayer,
    double_feature_half,
    negated_gate_,
    shift_slots,
)


class Sampler:
    """Draws code maps from `prior` for up to `batch` images at a time, as `choice` says.

    It packs the prior's weights as they are now: make a new one after a further fit. Memory: a copy of the weights;
    m + 1 rows of the vertical and of w + m + 1 positions of the horizontal state for each layer and image; all keys and
    values of each attention layer. Raises ValueError for guidance of a prior that does not know 'no class'.
    """

    @torch.no_grad()
    def __init__(self, prior: Prior, batch: int, choice: SamplingConfig = AS_FITTED) -> None:
        require(batch >= 1, f"batch must be at least 1, got {batch}")
        _check_guidance(prior, choice)
        self.prior, self.batch, self.choice = prior, batch, choice
        self.guided = choice.guidance != 1
        self._pack(prior, batch * (2 if self.guided else 1))
        self._allocate(prior, batch * (2 if self.guided else 1))
        # What attention reads grows from row to row; without it one work serves the pixels of all rows.
        pixels = [partial(self._pixel, row) for row in range(prior.shape[0] if self.attention else 1)]
        self._next_row, *self._next_pixel = replay_graphs([self._row, *pixels], self.codes.device, self._reset)

    def _pack(self, prior: Prior, n: int) -> None:
        """Weights, as the steps read them; code k stands for 'outside of the map'."""
        width, first = prior.shape[1], prior.blocks[0]
        blocks = [block for block in prior.blocks if isinstance(block, GatedBlock)]
        self.layers = [PackedLayer(block, n, width) for block in blocks]
        self.attention = {
            int(name): PackedAttention(layer, prior.codes.weight, n, prior.shape)
            for name, layer in prior.attention.items()
            if isinstance(layer, CausalAttention)
        }
        self.codes = F.pad(prior.codes.weight, (0, 0, 0, 1))  # k+1 c
        # What a code gives to the first horizontal filter at the next position, the one after that, ...
        taps = [self.codes @ tap for tap in self.layers[0].taps.flip(0)]
        self.table = torch.cat([self.codes, *taps], dim=1)  # k+1 c+(m+1)2r
        self.position = prior.rows[:, None] + prior.columns  # h w c
        assert isinstance(first, GatedBlock)
        self.first_terms = first.horizontal(self.position[None])[0]  # h w 2r: what positions give to that filter
        self.first_terms[..., : self.first_terms.shape[-1] // 2].mul_(2)
        self.context_weight = (
            torch.cat([double_feature_half(block.context.weight) for block in blocks]).t().contiguous()
        )  # c l2r
        self.context_bias = torch.cat([double_feature_half(block.context.bias) for block in blocks])
        self.output = [_packed(block) for block in prior.output]
        self.logits_weight, self.logits_bias = prior.logits.weight.t().contiguous(), prior.logits.bias.clone()

    def _allocate(self, prior: Prior, n: int) -> None:
        """Everything that the steps write."""
        (h, w), c, k, layers = prior.shape, prior.config.hidden, prior.codebook_size, len(self.layers)
        r, window = prior.config.residual_hidden, self.layers[0].reach + 1
        new, index = self.codes.new_zeros, partial(self.codes.new_zeros, dtype=torch.int64)
        self.row_index, self.column, self.slot = index(1), index(1), index(1)
        self.map_context = new(n, h, w, c) if prior.conditioning else new(n, 1, 1, c)
        self.row_context = new(n, 1, self.map_context.shape[2], c)
        self.context = new(n, self.map_context.shape[2], layers, 2 * r)
        self.row, self.line = new(n, w, c), new(1, w, c)  # the vertical state, layer after layer; this row's positions
        self.gated_row = new(n, w, r)
        self.first_row = new(1, w, 2 * r)
        self.terms = new(layers, n, w, 2 * r)  # what rows above, context and positions add to this row's gates
        self.noise_row = new(self.batch, w, k)
        self.sums = new(layers, n, 1, 2 * r)
        self.windows = new(layers, n, window, c)  # the last inputs of each horizontal filter but the first
        self.places, self.filters = self.windows.unbind(2), self.windows.flatten(2).unbind(0)
        self.states = [*self.places[-1].unbind(0), new(n, c)]
        self.gates = [GateSums.of(sums) for sums in self.sums[:, :, 0].unbind(0)]
        ahead = new(n, window, 2 * r)
        self.ahead = ahead.unbind(1)  # what the codes so far give to the first filter at the next positions, n 2r each
        self.entering = self.table.new_zeros(n, self.table.shape[1])
        self.embedded, self.taps = self.entering[:, :c], self.entering[:, c:].view(ahead.shape).unbind(1)
        self.place, self.gated, self.inner, self.active = new(1, 1, c), new(n, r), new(n, r), new(n, c)
        self.flat_place = self.place[0]
        self.out, self.guided_out = new(n, k), new(self.batch, k)
        self.with_class, self.without_class = self.out[: self.batch], self.out[-self.batch :]
        self.noise_now = new(self.batch, 1, k)
        self.flat_noise = self.noise_now[:, 0]
        self.chooser = LogitFilter(self.choice, self.guided_out)
        self.given_row, self.given, self.drawn = index(self.batch, w), index(self.batch, 1), index(self.batch)
        self.flat_given, self.free = self.given[:, 0], self.drawn > 0
        self.code, self.row_codes, self.seeds = index(n), index(n, w), index(self.batch)
        self.codes_now, self.copies = self.code[:, None], self.code.split(self.batch)

    @torch.no_grad()
    def sample(self, labels: Tensor, above: Sequence[Tensor], seeds: Tensor, *, given: Tensor | None = None) -> Tensor:
        """Labels (n,), maps above, seeds int64 (n,) -> codes int64 (n, h, w), n at most the preallocated batch.

        An image's codes depend on its own label, maps above and seed, not on its batch. Each is the argmax of the
        filtered logits + Gumbel noise, an exact draw from their softmax. Codes of `given` (n, h, w) that are not -1
        are kept, and the others drawn after the kept ones that come earlier in raster order.
        """
        integers = seeds.dtype == torch.int64 and seeds.shape == labels.shape
        require(
            integers,
            f"seeds must be int64 with one seed for each of the {len(labels)} labels, got {seeds.dtype} "
            f"{tuple(seeds.shape)}",
        )
        self._begin(labels, above, given)
        self.seeds[: len(seeds)] = seeds
        codes = torch.empty(len(labels), *self.prior.shape, dtype=torch.int64, device=self.codes.device)
        for i in range(self.prior.shape[0]):
            self._start_row(i, given)
            pixel = self._next_pixel[i if self.attention else 0]
            for _ in range(self.prior.shape[1]):
                pixel()
            codes[:, i] = self.row_codes[: len(labels)]
        return codes

    def noise(self, seeds: Tensor, row: int | Tensor) -> Tensor:
        """The noise, float64 (n, w, k), that decides row `row` of the images with `seeds`."""
        width, size = self.prior.shape[1], self.prior.codebook_size
        return gumbel_noise(seeds, level=len(self.prior.above), row=row, width=width, codebook_size=size)

    @torch.no_grad()
    def logits(self, codes: Tensor, labels: Tensor, above: Sequence[Tensor]) -> Tensor:
        """Logits (n, h, w, k), guided as `choice` says, computed the sampler's way: all `codes` (n, h, w) are given."""
        self._begin(labels, above, codes)
        logits = self.codes.new_empty(*codes.shape, self.prior.codebook_size)
        for i in range(self.prior.shape[0]):
            self._start_row(i, codes)
            for j in range(self.prior.shape[1]):
                self._next_pixel[i if self.attention else 0]()
                logits[:, i, j] = self.guided_out[: len(codes)]
        return logits

    def _begin(self, labels: Tensor, above: Sequence[Tensor], given: Tensor | None) -> None:
        """Forget the last images and compute what is fixed for the new ones; images past their number are padding."""
        self.prior.check(labels, above)
        n = len(labels)
        require(n <= self.batch, f"at most batch={self.batch} images fit, got {n}: split them or make a larger Sampler")
        if given is not None:
            self.prior.check(labels, above, torch.where(given == -1, 0, given))
        self._reset()
        self.map_context[:n] = self.prior.context(labels, above)
        if self.guided:
            unconditional = torch.full_like(labels, self.prior.classes)
            self.map_context[self.batch : self.batch + n] = self.prior.context(unconditional, above)
        if self.prior.conditioning is None:
            self._contexts(self.map_context)

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
            self.given_row[: len(given)] = given[:, i]

    def _contexts(self, context: Tensor) -> None:
        """What the context, (n, 1, w, c) of a row or (n, 1, 1, c) of all rows, adds to every gate of every layer."""
        out = self.context.view(-1, self.context_bias.shape[0])
        torch.addmm(self.context_bias, context.view(-1, context.shape[-1]), self.context_weight, out=out)

    def _row(self) -> None:
        """Run the vertical stack over the next row, given the codes of the last, and prepare the horizontal stack's."""
        if self.prior.conditioning is not None:
            self._contexts(torch.index_select(self.map_context, 1, self.row_index, out=self.row_context))
        flat, gated = self.row.flatten(0, 1), self.gated_row.flatten(0, 1)
        torch.index_select(self.codes, 0, self.row_codes.view(-1), out=flat)
        self.row.add_(torch.index_select(self.position, 0, self.row_index, out=self.line))
        for index, layer in enumerate(self.layers):
            context = self.context[:, :, index]
            negated_gate_(GateSums.of(layer.vertical(self.row).add_(context)), self.gated_row)
            flat.addmm_(gated, layer.vertical_out)
            torch.mm(flat, layer.link, out=self.terms[index].flatten(0, 1))
            self.terms[index].add_(context)
        self.terms[0].add_(torch.index_select(self.first_terms, 0, self.row_index, out=self.first_row))
        self.noise_row.copy_(self.noise(self.seeds, self.row_index))
        for zeroed in (self.column, self.windows, *self.ahead, self.entering):
            zeroed.zero_()
        self.row_index.add_(1)

    def _pixel(self, row: int) -> None:
        """Run the horizontal stack and the output over the next position of `row`, draw its codes and take them in."""
        torch.index_select(self.terms, 2, self.column, out=self.sums)
        self.gates[0].whole.add_(self.ahead[0])
        torch.index_select(self.line, 1, self.column, out=self.place)
        torch.add(self.embedded, self.flat_place, out=self.states[0])
        for index, layer in enumerate(self.layers):
            sums, state = self.gates[index], self.states[index + 1]
            if index:
                sums.whole.addmm_(self.filters[index], layer.horizontal)
            negated_gate_(sums, self.gated)
            torch.addmm(self.states[index], self.gated, layer.horizontal_out, out=state)
            if index in self.attention:
                self.attention[index].step(state, row, self.column)
        for inner, bias, outer in self.output:
            torch.clamp_min(state, 0, out=self.active)
            torch.addmm(bias, self.active, inner, out=self.inner).relu_()
            state.addmm_(self.inner, outer)
        torch.addmm(self.logits_bias, state.relu_(), self.logits_weight, out=self.out)
        self._choose()
        self._take_in()

    def _choose(self) -> None:
        """The present position's codes, drawn or given."""
        torch.lerp(self.without_class, self.with_class, self.choice.guidance, out=self.guided_out)
        torch.index_select(self.noise_row, 1, self.column, out=self.noise_now)
        self.chooser.draw(self.guided_out, self.flat_noise, self.drawn)
        torch.index_select(self.given_row, 1, self.column, out=self.given)
        torch.lt(self.flat_given, 0, out=self.free)
        for code in self.copies:
            torch.where(self.free, self.drawn, self.flat_given, out=code)

    def _take_in(self) -> None:
        """Move on by one position, past the present codes."""
        self.row_codes.index_copy_(1, self.column, self.codes_now)
        for attention in self.attention.values():
            attention.remember(self.code, self.slot)
        shift_slots(self.places)
        torch.index_select(self.table, 0, self.code, out=self.entering)
        shift_slots(self.ahead)
        self.ahead[-1].zero_()
        for ahead, tap in zip(self.ahead, self.taps, strict=True):
            ahead.add_(tap)
        self.column.add_(1)
        self.slot.add_(1)


def _packed(block: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of an output block as right-hand factors."""
    assert isinstance(block, OutputBlock)
    return block.inner.weight.t().contiguous(), block.inner.bias.clone(), block.out.weight.t().contiguous()


def _check_guidance(prior: Prior, choice: SamplingConfig) -> None:
    if choice.guidance == 1:
        return
    require(
        prior.classes > 0, f"guidance must be 1 for a prior that was fitted without classes, got {choice.guidance:g}"
    )
    share = prior.config.label_dropout
    require(
        share > 0,
        f"guidance other than 1 needs a prior that knows 'no class', fitted with label_dropout above 0, got {share:g} "
        f"and guidance {choice.guidance:g}: fit it with label_dropout=0.1, or leave guidance at 1",
    )

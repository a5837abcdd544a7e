"""Vector quantization with a codebook that follows the encoder by moving averages (Razavi et al. 2019, equations 1, 2).

Shapes: n images, h w sides of a code map, d code width, k codebook size, v vectors (n h w of this worker), p pool.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

DISTANCES_CPU, DISTANCES_DEVICE = 2**19, 2**26
"""Distances held at once by a search: few enough for a processor's cache, enough to keep an accelerator busy."""
DISTANCES_PER_BLOCK = 64
"""Distances among which the least is sought at a time, on a processor."""
CANDIDATES_PER_VECTOR = 8
"""Encoder outputs among which one new vector is drawn."""
SMALLEST_COUNT = 1e-20
"""Average count below which a vector stays where it is: m_i / N_i nears 0 / 0."""


class CodebookUse(NamedTuple):
    """How a codebook was used: in training by the batches of all workers, in evaluation by this worker's batch."""

    perplexity: Tensor
    """exp of the entropy of the codes: 1 when one code serves all, k when all serve alike."""
    usage: Tensor
    """Share of the codebook that was used at all."""


class Quantized(NamedTuple):
    """What becomes of one level's encoder outputs."""

    vectors: Tensor
    """(n, d, h, w) nearest vectors; their gradient goes to the encoder outputs as it is (straight-through)."""
    codes: Tensor
    """int64 (n, h, w)."""
    distance: Tensor
    """Mean of |sg[e] - E(x)|^2 over all numbers: equation 2's commitment term without beta."""
    statistics: CodebookUse


class Quantizer(nn.Module):
    """One level's codebook e (k, d), with the moving averages N (k) and m (k, d) of equation 2, all kept in buffers.

    A vector starts as a real encoder output, with N and m as one update from zero would leave them had it served the
    uniform count. So it is never 0 / 0, and it follows the encoder quickly while it is young: early in a fit, outputs
    move further in ten updates than averages with the weight of a hundred can follow, and most codes would be lost.

    A forward in training mode updates the codebook, and with torch.distributed initialised every worker must make it
    together with the others: counts and sums of all are added in one all-reduce. Codebooks stay bit for bit equal.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    updates: Tensor
    born: Tensor

    def __init__(self, *, codebook_size: int, code_width: int, decay: float, restart_below: float, seed: int) -> None:
        """`seed` sets which encoder outputs become vectors, at the first update and at each restart."""
        super().__init__()
        self.decay, self.restart_below, self.seed = decay, restart_below, seed
        vectors = torch.randn(codebook_size, code_width)
        self.register_buffer("codebook", vectors)
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", vectors.clone())
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("born", torch.zeros(codebook_size, dtype=torch.int64))

    def forward(self, features: Tensor) -> Quantized:
        """Encoder outputs (n, d, h, w) of any float type -> Quantized, in float32."""
        features = features.to(self.codebook.dtype)
        flat = features.detach().permute(0, 2, 3, 1).flatten(0, 2)  # v d
        if self.training:
            self._initialise(flat)
        codes = nearest_codes(flat, self.codebook)
        nearest_vectors = F.embedding(codes, self.codebook)  # copied before the update moves the codebook
        counts = self._update(flat, codes) if self.training else _count(codes, len(self.codebook))
        n, _, h, w = features.shape
        vectors = nearest_vectors.view(n, h, w, -1).permute(0, 3, 1, 2)
        distance = (vectors - features).square().mean()
        # Adding an exact zero keeps the value that decode() will see, and gives E(x) the gradient.
        straight_through = vectors + (features - features.detach())
        return Quantized(straight_through, codes.view(n, h, w), distance, _statistics(counts))

    def encode(self, features: Tensor) -> Tensor:
        """Encoder outputs (n, d, h, w) -> codes int64 (n, h, w)."""
        last = features.permute(0, 2, 3, 1).to(self.codebook.dtype)
        return nearest_codes(last.flatten(0, 2), self.codebook).view(last.shape[:3])

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 (n, h, w) -> vectors (n, d, h, w)."""
        return F.embedding(codes, self.codebook).permute(0, 3, 1, 2)

    def mean(self) -> Tensor:
        """Mean of the vectors weighted by use: sum N_i e_i / sum N_i, (d)."""
        weights = self._average_counts()
        return (weights[:, None] * self.codebook).sum(dim=0) / weights.sum()

    def _average_counts(self) -> Tensor:
        """N_i with the bias of its short history taken out: the mean count an update since the code started, (k)."""
        history = self.updates - self.born + 1
        return self.counts / (1 - self.decay**history)

    @torch.no_grad()
    def _initialise(self, flat: Tensor) -> None:
        """At the first update, take vectors from real encoder outputs."""
        if int(self.updates) > 0:
            return
        rank, workers = _rank_and_workers()
        sizes = flat.new_zeros(workers)
        sizes[rank] = len(flat)
        if workers > 1:
            dist.all_reduce(sizes)
        self._replace(torch.ones_like(self.counts, dtype=torch.bool), flat, sizes)

    @torch.no_grad()
    def _update(self, flat: Tensor, codes: Tensor) -> Tensor:
        """Equation 2 with the outputs of all workers; returns how often each code was used by all of them, (k).

        Counts are exact while a worker has fewer than 2^24 vectors an update.
        """
        (k, d), (rank, workers) = self.codebook.shape, _rank_and_workers()
        reduced = flat.new_zeros(k + k * d + workers)
        counts, sums, sizes = reduced.split([k, k * d, workers])
        counts.copy_(_count(codes, k))
        sums.view(k, d).index_add_(0, codes, flat)
        sizes[rank] = len(flat)
        if workers > 1:
            dist.all_reduce(reduced)
        g = self.decay
        self.counts.mul_(g).add_(counts, alpha=1 - g)  # equation 2: N_i <- g N_i + (1 - g) n_i
        self.sums.mul_(g).add_(sums.view(k, d), alpha=1 - g)  # equation 2: m_i <- g m_i + (1 - g) sum_j E(x)_ij
        means = self.sums / self.counts[:, None]  # equation 2: e_i <- m_i / N_i
        self.codebook.copy_(torch.where(self.counts[:, None] > SMALLEST_COUNT, means, self.codebook))
        self.updates += 1
        if self.restart_below:
            dead = self._average_counts() < self.restart_below * counts.sum() / k
            if bool(dead.any()):
                self._replace(dead, flat, sizes)
        return counts

    def _replace(self, which: Tensor, flat: Tensor, sizes: Tensor) -> None:
        """Give the codes in the mask `which` (k) new vectors and averages, a function of state and outputs alone.

        `sizes` (workers) says how many vectors each worker has. Worker 0 chooses for all, so that no difference
        between processors can set the codebooks apart.
        """
        generator = torch.Generator().manual_seed((self.seed << 32) + int(self.updates))
        count = int(which.sum())
        pool = _draw_candidates(flat, sizes.long(), CANDIDATES_PER_VECTOR * count, generator)
        drawn = flat.new_empty(count, flat.shape[1])
        rank, workers = _rank_and_workers()
        if rank == 0:
            drawn.copy_(_spread_out(pool.cpu(), self.codebook[~which].cpu(), count, generator))
        if workers > 1:
            dist.broadcast(drawn, 0)
        weight = (1 - self.decay) * sizes.sum() / len(which)
        self.codebook[which] = drawn
        self.counts[which] = weight
        self.sums[which] = weight * drawn
        self.born[which] = self.updates


def nearest_codes(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Equation 1: the code whose vector lies nearest to each of (v, d) in (k, d), int64 (v); the first of equals.

    Time is that of one matrix product, 2 v k d operations; memory beside the operands is v codes and at most
    DISTANCES_CPU (or DISTANCES_DEVICE) distances (at least one row of k), whatever v is. Autocast does not reach in.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        # |x - e|^2 = |x|^2 + |e|^2 - 2 x.e, where |x|^2 is the same for all e. With e = mean + r that is, up to such
        # constants, |r|^2 + 2 mean.r - 2 x.r: a mean far from 0 does not drown the differences in rounding.
        mean = codebook.mean(dim=0)
        rest = codebook - mean
        bias = rest.square().sum(dim=1) + 2 * (rest @ mean)
        distances = DISTANCES_CPU if vectors.device.type == "cpu" else DISTANCES_DEVICE
        parts = vectors.split(max(1, distances // len(codebook)))
        return torch.cat([_argmin_rows(torch.addmm(bias, part, rest.t(), alpha=-2)) for part in parts])


def _argmin_rows(distances: Tensor) -> Tensor:
    """argmin of each row (v, k), the first of equals.

    On a processor argmin looks at one number at a time, amin at many: the least of each block says in which to look.
    """
    v, k = distances.shape
    if distances.device.type != "cpu" or k % DISTANCES_PER_BLOCK or k <= 2 * DISTANCES_PER_BLOCK:
        return distances.argmin(dim=1)
    blocks = distances.view(-1, DISTANCES_PER_BLOCK)
    block = blocks.amin(dim=1).view(v, k // DISTANCES_PER_BLOCK).argmin(dim=1)
    chosen = blocks.index_select(0, torch.arange(0, v * k // DISTANCES_PER_BLOCK, k // DISTANCES_PER_BLOCK) + block)
    return block * DISTANCES_PER_BLOCK + chosen.argmin(dim=1)


def _count(codes: Tensor, size: int) -> Tensor:
    """How often each code occurs in int64 (v): float32 (size)."""
    ones = torch.ones(len(codes), device=codes.device)
    return torch.zeros(size, device=codes.device).index_add_(0, codes, ones)


def _statistics(counts: Tensor) -> CodebookUse:
    share = counts / counts.sum()
    return CodebookUse(torch.exp(-torch.xlogy(share, share).sum()), (counts > 0).float().mean())


def _rank_and_workers() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _draw_candidates(flat: Tensor, sizes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` vectors drawn from those of all workers (all of them where there are fewer), the same on each: (p, d)."""
    rank, workers = _rank_and_workers()
    total, before = int(sizes.sum()), int(sizes[:rank].sum())
    chosen = torch.arange(total) if total <= count else torch.randint(total, (count,), generator=generator)
    own = ((chosen >= before) & (chosen < before + len(flat))).nonzero()[:, 0]
    pool = flat.new_zeros(len(chosen), flat.shape[1])
    pool[own.to(flat.device)] = flat[(chosen[own] - before).to(flat.device)]
    if workers > 1:
        dist.all_reduce(pool)  # one worker has each row, the others zeros: the sum copies it
    return pool


def _spread_out(pool: Tensor, known: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows of the pool (p, d), each drawn by its squared distance to the nearest of `known` and those drawn.

    This is k-means++ (Arthur and Vassilvitskii 2007). A uniform draw would give most codes to the images' background,
    whose outputs are all alike.
    """
    if len(known) == 0:
        first = pool[torch.randint(len(pool), (1,), generator=generator)]
        return torch.cat([first, _spread_out(pool, first, count - 1, generator)])
    distance = (pool - known[nearest_codes(pool, known)]).square().sum(dim=1)
    rows = []
    for _ in range(count):
        # Outputs of a fit that diverges may not be finite: the loss will say so, this draw must only not fail first.
        odds = distance.nan_to_num(nan=0.0, posinf=0.0)
        odds = odds if odds.sum() > 0 else torch.ones_like(odds)
        row = torch.multinomial(odds, 1, generator=generator)
        distance = torch.minimum(distance, (pool - pool[row]).square().sum(dim=1))
        rows.append(row)
    return pool[torch.cat(rows)]

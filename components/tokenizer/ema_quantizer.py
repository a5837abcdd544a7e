"""Vector quantization with a codebook that follows the encoder by moving averages (Razavi et al. 2019, equations 1, 2).

Shapes: n images, h w sides of a code map, d code width, k codebook size, v vectors (n h w of this worker), p pool of
candidates, r vectors to replace.
"""

from typing import Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from components.tokenizer.config import LevelConfig, VQVAEArchitecture, VQVAEFitting
from components.tokenizer.nearest_codes import nearest_codes
from components.tokenizer.quantizer import (
    Quantized,
    Quantizer,
    codebook_use,
    count_codes,
    mixed_seed,
    rank_and_workers,
)

CANDIDATES_PER_VECTOR = 8
"""Encoder outputs from which one new vector is drawn."""
SMALLEST_COUNT = 1e-20
"""Average count below which a vector does not move, because m_i / N_i approaches 0 / 0."""


class EMAQuantizer(Quantizer):
    """One level's codebook e (k, d), with the moving averages N (k) and m (k, d) of equation 2, all kept in buffers.

    A vector starts as a real encoder output. Its N and m start at the values that one update from zero gives to a
    vector that is used as often as the average one. So m / N is never 0 / 0, and the vector follows the encoder quickly
    during its first updates. If N and m started with the weight of a hundred updates, most codes would be lost: early
    in a fit, outputs move too far within ten updates for such averages to follow.

    A forward pass in training mode updates the codebook. With torch.distributed initialised, every worker must make it
    together with the others: counts and sums of all are added in one all-reduce. The workers' codebooks stay equal bit
    for bit.
    """

    codebook: Tensor
    """(k, d): e."""
    counts: Tensor
    """(k): N, the moving average of how often each code is used per update."""
    sums: Tensor
    """(k, d): m, the moving average of the sum of the outputs that are assigned to each code."""
    updates: Tensor
    """int64 (): updates made."""
    born: Tensor
    """int64 (k): the update at which each code was last restarted; 0 for the first vectors."""

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

    @classmethod
    def for_level(
        cls, level: LevelConfig, architecture: VQVAEArchitecture, fitting: VQVAEFitting, *, seed: int
    ) -> Self:
        """The quantizer of `level`, untrained."""
        return cls(
            codebook_size=level.codebook_size,
            code_width=level.code_width,
            decay=architecture.decay,
            restart_below=fitting.restart_below,
            seed=seed,
        )

    def forward(self, features: Tensor) -> Quantized:
        """Encoder outputs (n, d, h, w) of any float type -> Quantized, in float32."""
        features = features.to(self.codebook.dtype)  # (n, d, h, w), float32 under autocast too
        flat = features.detach().permute(0, 2, 3, 1).flatten(0, 2)  # (v, d)
        if self.training:
            self._initialise(flat)
        codes = nearest_codes(flat, self.codebook)  # (v)
        nearest_vectors = F.embedding(codes, self.codebook)  # (v, d), copied before the update moves the codebook
        counts = self._update(flat, codes) if self.training else count_codes(codes, len(self.codebook))  # (k)
        n, _, h, w = features.shape
        vectors = nearest_vectors.view(n, h, w, -1).permute(0, 3, 1, 2)  # (n, d, h, w)
        distance = (vectors - features).square().mean()  # ()
        # Adding an exact zero keeps the value that decode() will see, and gives E(x) the gradient.
        straight_through = vectors + (features - features.detach())  # (n, d, h, w)
        return Quantized(straight_through, codes.view(n, h, w), distance, codebook_use(counts))

    def encode(self, features: Tensor) -> Tensor:
        """Encoder outputs (n, d, h, w) -> codes int64 (n, h, w)."""
        last = features.permute(0, 2, 3, 1).to(self.codebook.dtype)  # (n, h, w, d)
        return nearest_codes(last.flatten(0, 2), self.codebook).view(last.shape[:3])  # (n, h, w)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 (n, h, w) -> vectors (n, d, h, w)."""
        return F.embedding(codes, self.codebook).permute(0, 3, 1, 2)  # (n, d, h, w)

    def mean(self) -> Tensor:
        """Mean of the vectors weighted by use: sum N_i e_i / sum N_i, (d)."""
        weights = self._average_counts()  # (k)
        return (weights[:, None] * self.codebook).sum(dim=0) / weights.sum()  # (d)

    def _average_counts(self) -> Tensor:
        """N_i corrected for its short history: the mean count per update since the code started, (k)."""
        history = self.updates - self.born + 1  # (k)
        return self.counts / (1 - self.decay**history)  # (k)

    @torch.no_grad()
    def _initialise(self, flat: Tensor) -> None:
        """At the first update, replace all vectors by encoder outputs; `flat` (v, d) are this worker's."""
        if int(self.updates) > 0:
            return
        rank, workers = rank_and_workers()
        sizes = flat.new_zeros(workers)  # (workers)
        sizes[rank] = len(flat)
        if workers > 1:
            dist.all_reduce(sizes)
        self._replace(torch.ones_like(self.counts, dtype=torch.bool), flat, sizes)

    @torch.no_grad()
    def _update(self, flat: Tensor, codes: Tensor) -> Tensor:
        """Equation 2 with the outputs of all workers; returns how often each code was used by all of them, (k).

        Counts are float32: exact while a worker has fewer than 2^24 vectors per update.
        """
        (k, d), (rank, workers) = self.codebook.shape, rank_and_workers()
        reduced = flat.new_zeros(k + k * d + workers)  # one buffer, so that one all-reduce adds everything
        counts, sums, sizes = reduced.split([k, k * d, workers])  # views (k), (k d), (workers)
        counts.copy_(count_codes(codes, k))
        sums.view(k, d).index_add_(0, codes, flat)
        sizes[rank] = len(flat)
        if workers > 1:
            dist.all_reduce(reduced)
        g = self.decay
        self.counts.mul_(g).add_(counts, alpha=1 - g)  # equation 2: N_i <- g N_i + (1 - g) n_i
        self.sums.mul_(g).add_(sums.view(k, d), alpha=1 - g)  # equation 2: m_i <- g m_i + (1 - g) sum_j E(x)_ij
        means = self.sums / self.counts[:, None]  # (k, d); equation 2: e_i <- m_i / N_i
        self.codebook.copy_(torch.where(self.counts[:, None] > SMALLEST_COUNT, means, self.codebook))  # (k, d)
        self.updates += 1
        # A code that is hardly used would stay far from the outputs for ever: it restarts at one of them.
        if self.restart_below:
            dead = self._average_counts() < self.restart_below * counts.sum() / k  # bool (k)
            if bool(dead.any()):
                self._replace(dead, flat, sizes)
        return counts

    def _replace(self, which: Tensor, flat: Tensor, sizes: Tensor) -> None:
        """Give the codes in the mask `which` (k) new vectors and averages, a function of state and outputs alone.

        `sizes` (workers) says how many vectors each worker has. Worker 0 chooses for all: processors that round
        differently would otherwise choose differently, and the workers' codebooks would no longer be equal.
        """
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, int(self.updates)))
        count = int(which.sum())  # r
        pool = _draw_candidates(flat, sizes.long(), CANDIDATES_PER_VECTOR * count, generator)  # (p, d)
        drawn = flat.new_empty(count, flat.shape[1])  # (r, d)
        rank, workers = rank_and_workers()
        if rank == 0:
            drawn.copy_(_spread_out(pool.cpu(), self.codebook[~which].cpu(), count, generator))
        if workers > 1:
            dist.broadcast(drawn, 0)
        weight = (1 - self.decay) * sizes.sum() / len(which)  # (): N after one update from 0 with the mean count
        self.codebook[which] = drawn
        self.counts[which] = weight
        self.sums[which] = weight * drawn
        self.born[which] = self.updates


def _draw_candidates(flat: Tensor, sizes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` vectors drawn from those of all workers (all of them where there are fewer), the same on each: (p, d).

    `flat` (v, d) are this worker's vectors, `sizes` (workers) the number of each worker's. Vectors are numbered through
    all workers in the order of their ranks: this worker has those from `before` to `before + v - 1`.
    """
    rank, workers = rank_and_workers()
    total, before = int(sizes.sum()), int(sizes[:rank].sum())
    chosen = torch.arange(total) if total <= count else torch.randint(total, (count,), generator=generator)  # (p)
    local = ((chosen >= before) & (chosen < before + len(flat))).nonzero()[:, 0]  # positions in `chosen`
    pool = flat.new_zeros(len(chosen), flat.shape[1])  # (p, d)
    pool[local.to(flat.device)] = flat[(chosen[local] - before).to(flat.device)]  # other workers' rows stay 0
    if workers > 1:
        dist.all_reduce(pool)  # each row is zero on all workers but one: the sum copies it
    return pool


def _spread_out(pool: Tensor, present: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` rows of the pool (p, d) that are far from each other and from `present`: (r, d).

    The odds of a row are its squared distance to the nearest vector so far, in `present` or drawn before: k-means++
    (Arthur and Vassilvitskii 2007). A uniform draw would give most codes to the images' background, whose outputs are
    all alike.
    """
    if len(present) == 0:
        first = pool[torch.randint(len(pool), (1,), generator=generator)]  # (1, d)
        return torch.cat([first, _spread_out(pool, first, count - 1, generator)])
    # Invariant of the loop: `distance` is each row's squared distance to the nearest of `present` and the rows drawn.
    distance = (pool - present[nearest_codes(pool, present)]).square().sum(dim=1)  # (p)
    rows = []
    for _ in range(count):
        # Outputs of a fit that diverges may not be finite. The loss then reports it; this draw must not fail first.
        odds = distance.nan_to_num(nan=0.0, posinf=0.0)  # (p)
        odds = odds if odds.sum() > 0 else torch.ones_like(odds)
        row = torch.multinomial(odds, 1, generator=generator)  # (1)
        distance = torch.minimum(distance, (pool - pool[row]).square().sum(dim=1))  # (p)
        rows.append(row)
    return pool[torch.cat(rows)]  # (r, d)

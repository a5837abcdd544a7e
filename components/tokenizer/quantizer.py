"""The interface of every quantizer of one level; the kinds are registered in quantizers.py.

Shapes: n images, h w sides of a code map, d code width, k codebook size, v vectors.
"""

import hashlib
from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from components.tokenizer.config import LevelConfig, VQVAEArchitecture, VQVAEFitting


class CodebookUse(NamedTuple):
    """How a codebook was used: in training by the batches of all workers, in evaluation by this worker's batch."""

    perplexity: Tensor
    """exp of the entropy of the codes: 1 when a single code is used, k when all are used equally often."""
    usage: Tensor
    """Fraction of the codebook that was used at all: the `usage` of Yu et al. 2022 (ViT-VQGAN), who count it per batch
    of 256 test images. It grows with the number of codes that are counted: compare it at equal n only."""


class Quantized(NamedTuple):
    """One level's encoder outputs after quantization."""

    vectors: Tensor
    """(n, d, h, w) chosen vectors; their gradient passes straight through the choice of the codes."""
    codes: Tensor
    """int64 (n, h, w)."""
    distance: Tensor
    """Mean of |sg[e] - E(x)|^2 over all numbers, of the outputs as the quantizer compares them: equation 2's commitment
    term without beta. 0 where a kind of quantizer has no such term."""
    statistics: CodebookUse


class Quantizer(nn.Module, ABC):
    """Maps the encoder outputs of one level to codes, and codes to vectors.

    A forward pass in training mode may change the quantizer's buffers; the other methods never do. All state is in
    parameters and buffers, so that a fit continues bit for bit from a state_dict.
    """

    @classmethod
    @abstractmethod
    def for_level(
        cls, level: LevelConfig, architecture: VQVAEArchitecture, fitting: VQVAEFitting, *, seed: int
    ) -> Self:
        """The quantizer of `level`, untrained; `seed` sets what it draws at random while it is fitted.

        Levels and fits have different seeds.
        """

    @abstractmethod
    def forward(self, features: Tensor) -> Quantized:
        """Encoder outputs (n, d, h, w) of any float type -> Quantized, in float32."""

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Encoder outputs (n, d, h, w) -> codes int64 (n, h, w)."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Codes int64 (n, h, w) -> vectors (n, d, h, w)."""

    def distances(self, features: Tensor, codes: Tensor) -> Tensor:
        """Mean of |e - E(x)|^2 over each image's numbers, float32 (n), for features (n, d, h, w) and their codes.

        A quantizer that transforms the outputs before it compares them overrides this.
        """
        return (self.lookup(codes) - features.float()).square().mean(dim=(1, 2, 3))  # (n)

    @abstractmethod
    def mean(self) -> Tensor:
        """Mean of the vectors, weighted by how often each is used: (d)."""


def mixed_seed(*parts: int) -> int:
    """A seed that depends on every bit of all `parts`, in the 32 bits that torch's generator of the CPU keeps."""
    text = " ".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def count_codes(codes: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs in int64 (v): float32 (k)."""
    ones = torch.ones(len(codes), device=codes.device)  # (v)
    return torch.zeros(codebook_size, device=codes.device).index_add_(0, codes, ones)  # (k)


def codebook_use(counts: Tensor) -> CodebookUse:
    """Statistics of the counts (k) of codes."""
    fractions = counts / counts.sum()  # (k)
    perplexity = torch.exp(-torch.xlogy(fractions, fractions).sum())  # ()
    return CodebookUse(perplexity, (counts > 0).float().mean())  # () each


def rank_and_workers() -> tuple[int, int]:
    """This worker's rank and the number of workers."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)

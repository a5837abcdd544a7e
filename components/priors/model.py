"""The prior of one level: p(codes | class, all code maps above), a gated PixelCNN with optional attention.

Shapes: n images, h w sides of the map, c hidden channels, k codebook size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.config import require
from components.priors.attention import CausalAttention
from components.priors.causal import GatedBlock, shift_down, shift_right
from components.priors.conditioning import ConditioningStack, MapSpec
from components.priors.config import PriorArchitecture
from components.priors.recompute import run_checkpointed

POSITION_SCALE = 0.1
"""Standard deviation of fresh position embeddings: small beside embedded codes, which start at 1."""


class OutputBlock(nn.Module):
    """Residual 1x1 block between the stacks and the logits."""

    def __init__(self, hidden: int, residual_hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden, residual_hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(residual_hidden, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (..., c) -> (..., c)
        return x + self.out(self.dropout(F.relu(self.inner(F.relu(x)))))


class Prior(nn.Module):
    """Gated PixelCNN over one code map; `forward` checks nothing, `check` checks everything.

    `shape` is this map's (height, width), `classes` the number of classes (0: none), `above` the maps of all levels
    above, coarsest first. The label `classes` stands for 'no class'.
    """

    def __init__(
        self,
        architecture: PriorArchitecture,
        *,
        shape: tuple[int, int],
        codebook_size: int,
        classes: int,
        above: tuple[MapSpec, ...],
        dropout: float = 0.0,
        recompute: bool = False,
    ) -> None:
        """`dropout` and `recompute` matter in training alone (components/priors/config.py)."""
        super().__init__()
        require(
            min(shape) >= 1 and codebook_size >= 2,
            "a code map must have sides of at least 1 and a codebook of at "
            f"least 2 vectors, got shape={tuple(shape)}, codebook_size={codebook_size}",
        )
        require(classes >= 0, f"classes must not be negative (0 fits without classes), got {classes}")
        require(
            bool(above) or architecture.conditioning_layers == 0,
            "conditioning_layers must be 0 for the top level, which has no map to read, got "
            f"{architecture.conditioning_layers}",
        )
        self.architecture, self.shape, self.codebook_size = architecture, shape, codebook_size
        self.classes, self.above, self.recompute = classes, tuple(above), recompute
        c, r = architecture.hidden, architecture.residual_hidden
        self.codes = nn.Embedding(codebook_size, c)
        self.labels = nn.Embedding(classes + 1, c)
        self.rows = nn.Parameter(torch.randn(shape[0], c) * POSITION_SCALE)  # h c
        self.columns = nn.Parameter(torch.randn(shape[1], c) * POSITION_SCALE)  # w c
        self.conditioning = (
            ConditioningStack(
                above,
                shape,
                hidden=c,
                residual_hidden=r,
                layers=architecture.conditioning_layers,
                dropout=dropout,
                recompute=recompute,
            )
            if above
            else None
        )
        self.blocks = nn.ModuleList(
            GatedBlock(c, r, filter_size=architecture.filter_size, dropout=dropout) for _ in range(architecture.layers)
        )
        self.attention = nn.ModuleDict(
            {
                str(block): CausalAttention(c, architecture.attention_heads, dropout=dropout)
                for block in architecture.attended_blocks()
            }
        )
        self.output = nn.Sequential(*(OutputBlock(c, r, dropout=dropout) for _ in range(architecture.output_layers)))
        self.logits = nn.Linear(c, codebook_size)

    def forward(self, codes: Tensor, labels: Tensor, above: Sequence[Tensor]) -> Tensor:
        """Codes (n, h, w), labels (n,), maps above -> logits (n, h, w, k).

        The logits at (i, j) depend on codes earlier in raster order alone.
        """
        context = self.context(labels, above)  # n h w c, or n 1 1 c
        embedded = self.codes(codes)  # n h w c
        position = self.rows[:, None] + self.columns  # h w c
        v, x = shift_down(embedded) + position, shift_right(embedded) + position  # n h w c: vertical, horizontal state
        recompute = self.recompute
        for layer, block in enumerate(self.blocks):
            v, x = run_checkpointed(block, v, x, context, recompute=recompute)
            if str(layer) in self.attention:
                x = run_checkpointed(self.attention[str(layer)], x, embedded, recompute=recompute)
        for block in self.output:
            x = run_checkpointed(block, x, recompute=recompute)
        return self.logits(F.relu(x))  # n h w k

    def context(self, labels: Tensor, above: Sequence[Tensor]) -> Tensor:
        """Input of every gate, from the class and the maps above: (n, h, w, c), or (n, 1, 1, c) without maps."""
        context = self.labels(labels)[:, None, None]  # n 1 1 c
        return context if self.conditioning is None else context + self.conditioning(above)

    def check(self, labels: Tensor, above: Sequence[Tensor], codes: Tensor | None = None) -> None:
        """Raise ValueError unless forward (or, without `codes`, a sampler) can take these tensors."""
        n = labels.shape[0] if labels.ndim == 1 else 0
        require(
            n >= 1,
            "labels must hold one class per image, of at least one image, in a vector; got shape "
            f"{tuple(labels.shape)}: drop empty batches",
        )
        labels_valid = not labels.is_floating_point() and bool(((labels >= 0) & (labels <= self.classes)).all())
        allowed = "0, for 'no class': this prior was fitted without classes"
        if self.classes:
            allowed = f"integers from 0 to {self.classes - 1}, or {self.classes} for 'no class'"
        require(
            labels_valid,
            f"labels must be {allowed}; got {_range(labels)}: check the labels against the prior's classes",
        )
        require(
            len(above) == len(self.above),
            f"this prior needs the {len(self.above)} code maps of the levels above "
            f"it, coarsest first, got {len(above)}",
        )
        for index, (spec, upper) in enumerate(zip(self.above, above, strict=True)):
            _check_map(f"code map {index} above", upper, (n, *spec[:2]), spec.codebook_size)
        if codes is not None:
            _check_map("the code map", codes, (n, *self.shape), self.codebook_size)


def _check_map(name: str, codes: Tensor, shape: tuple[int, ...], codebook_size: int) -> None:
    """Raise ValueError unless `codes` is an int64 map of `shape` with codes below `codebook_size`."""
    require(
        tuple(codes.shape) == shape,
        f"{name} must have shape (images, height, width) = {shape}, got "
        f"{tuple(codes.shape)}: was it encoded by another tokenizer, or for other images? Re-run 'encode'",
    )
    require(codes.dtype == torch.int64, f"{name} must be int64, got {codes.dtype}: convert with .long()")
    codes_valid = bool(((codes >= 0) & (codes < codebook_size)).all())
    require(
        codes_valid,
        f"{name} must hold codes from 0 to {codebook_size - 1}, got {_range(codes)}: "
        "was it encoded by another tokenizer? Re-run 'encode'",
    )


def _range(values: Tensor) -> str:
    """Type, least and greatest value, for an error."""
    return f"{values.dtype} values from {values.min().item()} to {values.max().item()}"

"""Gradient checkpointing: activations are computed again in the backward pass instead of being stored."""

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def run_checkpointed(module: nn.Module, *inputs: Any, recompute: bool) -> Any:
    """`module(*inputs)`; in training with `recompute`, only the inputs are stored for the backward pass."""
    return checkpoint(module, *inputs, use_reentrant=False) if recompute and module.training else module(*inputs)

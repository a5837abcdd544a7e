"""Memory for time: activations that are computed again in the backward pass instead of being kept."""

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def run_checkpointed(module: nn.Module, *inputs: Any, recompute: bool) -> Any:
    """`module(*inputs)`; while it is fitted with `recompute`, only its inputs are kept for the backward pass."""
    return checkpoint(module, *inputs, use_reentrant=False) if recompute and module.training else module(*inputs)

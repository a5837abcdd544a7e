"""Settings that more than one component shares. Standard library only: reading a config imports no torch."""

from dataclasses import dataclass, field
from typing import Literal


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one model is fitted: everything here changes the result, nothing here names a machine."""

    updates: int
    """Optimizer steps in all (the most that are made when early stopping is on)."""
    batch_size: int
    """Samples an update, over all workers together."""
    learning_rate: float = 3e-4
    """Adam's rate after the warm-up (table 3 of the paper: 3e-4 for every model)."""
    warmup_updates: int = 0
    """Updates over which the rate rises linearly from 0; 0 starts at the full rate."""
    final_rate: float = 1.0
    """Share of the learning rate left at the last update, reached by half a cosine; 1 keeps it constant."""
    gradient_clip: float = 0.0
    """Largest L2 norm of the gradient of all parameters together; 0 clips nothing."""
    weight_ema: float = 0.0
    """Decay an update of the averaged weights that are evaluated and kept; 0 keeps the raw weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of products and activations in training (autocast); weights, losses, codebook statistics and held-out
    figures stay float32."""
    channels_last: bool = False
    """Whether convolutions keep channels innermost, as GPUs with tensor cores read them; the same but for rounding."""
    compile: bool = False
    """Whether torch.compile fuses the model: a minute at the start, fewer passes over memory afterwards. Fused sums
    round otherwise, so it is a part of every fingerprint: a fit goes on bit for bit only as it was begun."""
    evaluate_every: int = 100
    """Updates between two held-out evaluations (and fixed-seed pictures)."""
    held_out_samples: int = 1024
    """Most held-out samples an evaluation measures."""
    checkpoint_every: int = 100
    """Updates between two checkpoints: the most work that a crash can cost."""
    patience: int = 0
    """Evaluations without a better held-out loss after which fitting stops; 0 never stops early."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "evaluate_every", "checkpoint_every", "held_out_samples"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_updates", "patience"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        known = self.precision in ("float32", "bfloat16")
        require(known, f"precision must be 'float32' or 'bfloat16', got {self.precision!r}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(0 <= self.final_rate <= 1, f"final_rate must lie in [0, 1], got {self.final_rate}")
        require(self.gradient_clip >= 0, f"gradient_clip must not be negative, got {self.gradient_clip}")
        require(0 <= self.weight_ema < 1, f"weight_ema must lie in [0, 1), got {self.weight_ema}")


@dataclass(frozen=True, kw_only=True)
class StepResources:
    """What one step asks the cluster for. Never part of a fingerprint: it does not change what a step means."""

    workers: int = 1
    """Processes that do the step's work together."""
    cpus: float = 1.0
    """Logical CPUs a worker."""
    gpus: float = 0.0
    """GPUs a worker; 0 computes on the CPU."""
    readers: int = 1
    """Ray tasks that decode images for a worker at a time, on half a CPU each; 0: the worker decodes for itself,
    which saves their start where images are small, or where the model is what takes time."""

    def __post_init__(self) -> None:
        require(self.workers >= 1, f"workers must be at least 1, got {self.workers}")
        require(self.cpus > 0, f"cpus must be above 0, got {self.cpus}")
        require(self.readers >= 0, f"readers must not be negative, got {self.readers}")
        require(self.gpus >= 0, f"gpus must not be negative, got {self.gpus}")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Each step's share of the cluster."""

    tokenizer: StepResources = field(default_factory=StepResources)
    """Workers of the VQ-VAE's fit."""
    codes: StepResources = field(default_factory=StepResources)
    """Actors that encode."""
    prior: StepResources = field(default_factory=StepResources)
    """Workers of EACH prior's fit; all levels are fitted at the same time."""
    classifier: StepResources = field(default_factory=StepResources)
    """Workers of each classifier's fit."""

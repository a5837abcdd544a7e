"""Settings that several components share, and the two sides of every setting. Standard library only: reading a config
imports no torch.

A setting either changes the result, and is part of the step's fingerprint, or only says how the result is made, and is
declared in a subclass of `Execution`. A config class joins both kinds by inheritance and declares no field itself, so
that whoever adds a setting has to choose a side.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Side = Literal["result", "execution"]


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


STORED_BEFORE = "stored_before"
"""Key in a field's metadata: its value in models that were stored before the field existed, where that is not its
default."""


# --- the two sides ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Base of settings that say how a result is made and cannot change it: no fingerprint holds them."""


def field_sides(config_type: type) -> dict[str, Side]:
    """Side of each field of a config class, by the class that declares it; TypeError for a field without a side."""
    sides: dict[str, Side] = {}
    for declaring in reversed(config_type.__mro__):  # bases first: a subclass may declare a field again
        declared = inspect.get_annotations(declaring)
        names = [each.name for each in dataclasses.fields(config_type) if each.name in declared]
        joins = issubclass(declaring, Execution) and not _only_execution(declaring)
        if names and joins:
            raise TypeError(
                f"{declaring.__name__} joins settings of both sides and must declare none itself, got {names}: "
                "move them into the class for the result or into the one derived from Execution"
            )
        sides |= dict.fromkeys(names, "execution" if issubclass(declaring, Execution) else "result")
    return sides


def _only_execution(declaring: type) -> bool:
    return all(issubclass(base, Execution) or base is object for base in declaring.__mro__)


def to_plain(config: Any) -> Any:
    """All settings of a config or of a section as plain values: what goes into YAML."""
    return _plain(config, keep=lambda side: True)


def result_settings(config: Any) -> Any:
    """The settings that change the result, as plain values: what goes into fingerprints and MLflow."""
    return _plain(config, keep=lambda side: side == "result")


def _plain(config: Any, keep: Any) -> Any:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        sides = field_sides(type(config))
        return {name: _plain(getattr(config, name), keep) for name in _field_names(config) if keep(sides[name])}
    if isinstance(config, Mapping):
        return {key: _plain(value, keep) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_plain(value, keep) for value in config]
    return config


def _field_names(config: Any) -> list[str]:
    return [each.name for each in dataclasses.fields(config)]


# --- fits -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """How one model is fitted: optimizer, batches, precision, evaluation."""

    updates: int
    """Updates in all; with early stopping, the most that are made."""
    batch_size: int
    """Samples per update, over all workers together."""
    learning_rate: float = 3e-4
    """Adam's rate after the warm-up (table 3 of the paper: 3e-4 for every model)."""
    warmup_updates: int = 0
    """Updates over which the rate rises linearly from 0; 0 starts at the full rate."""
    final_rate: float = 1.0
    """Fraction of learning_rate at the last update, reached along half a cosine; 1 keeps the rate constant."""
    gradient_clip: float = 0.0
    """Largest L2 norm of the gradient of all parameters together; 0 clips nothing."""
    weight_ema: float = 0.0
    """Decay per update of the averaged weights, which are evaluated and stored; 0 stores the raw weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of products and activations in training (autocast); weights, losses, codebook statistics and held-out
    figures stay float32."""
    channels_last: bool = False
    """Whether convolutions keep channels innermost, as GPUs with tensor cores read them; changes rounding only."""
    compile: bool = False
    """Whether torch.compile fuses the model: costs a minute at the start, saves passes over memory afterwards. Fused
    sums round differently, so this setting is part of the fingerprint: a fit must resume with the same value."""
    evaluate_every: int = 100
    """Updates between two held-out evaluations (and fixed-seed pictures)."""
    held_out_samples: int = 1024
    """Largest number of held-out samples per evaluation."""
    patience: int = 0
    """Evaluations in a row without a better held-out loss after which fitting stops; 0 never stops early."""

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "evaluate_every", "held_out_samples"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup_updates", "patience"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        valid = self.precision in ("float32", "bfloat16")
        require(valid, f"precision must be 'float32' or 'bfloat16', got {self.precision!r}")
        require(self.learning_rate > 0, f"learning_rate must be above 0, got {self.learning_rate}")
        require(0 <= self.final_rate <= 1, f"final_rate must lie in [0, 1], got {self.final_rate}")
        require(self.gradient_clip >= 0, f"gradient_clip must not be negative, got {self.gradient_clip}")
        require(0 <= self.weight_ema < 1, f"weight_ema must lie in [0, 1), got {self.weight_ema}")


@dataclass(frozen=True, kw_only=True)
class TrainingExecution(Execution):
    """Settings of a fit that cannot change its result."""

    checkpoint_every: int = 100
    """Updates between two checkpoints; a crash loses at most this many."""

    def __post_init__(self) -> None:
        require(self.checkpoint_every >= 1, f"checkpoint_every must be at least 1, got {self.checkpoint_every}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(TrainingExecution, TrainingSchedule):
    """The section `training` of every fitted model."""

    def __post_init__(self) -> None:
        TrainingSchedule.__post_init__(self)
        TrainingExecution.__post_init__(self)


# --- what steps ask the cluster for -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StepResources(Execution):
    """What one step asks the Ray cluster for."""

    workers: int = 1
    """Processes that do the step's work together."""
    cpus: float = 1.0
    """Logical CPUs per worker."""
    gpus: float = 0.0
    """GPUs per worker; 0 computes on the CPU. In a config file `auto` takes those of this machine, if there are any."""
    readers: int = 1
    """Ray tasks that decode images for each worker, on half a CPU each; 0: the worker decodes its own images, which is
    faster where images are small or where the model takes most of the time."""

    def __post_init__(self) -> None:
        require(self.workers >= 1, f"workers must be at least 1, got {self.workers}")
        require(self.cpus > 0, f"cpus must be above 0, got {self.cpus}")
        require(self.readers >= 0, f"readers must not be negative, got {self.readers}")
        require(self.gpus >= 0, f"gpus must not be negative, got {self.gpus}")


@dataclass(frozen=True, kw_only=True)
class Resources(Execution):
    """What each kind of step asks the Ray cluster for."""

    tokenizer: StepResources = field(default_factory=StepResources)
    """Workers of the VQ-VAE's fit."""
    codes: StepResources = field(default_factory=StepResources)
    """Actors that encode."""
    prior: StepResources = field(default_factory=StepResources)
    """Workers of EACH prior's fit; all levels are fitted at the same time."""
    classifier: StepResources = field(default_factory=StepResources)
    """Workers of each classifier's fit."""

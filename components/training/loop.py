"""The one training loop: every model of the pipeline is fitted by it. torch only; Ray is in step.py.

A fit is a function of (objective, config, seed, batches): update u draws its batch from u alone and seeds dropout
from (seed, u, rank), so a fit that resumes from update u goes on as if it had never stopped.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.config import TrainingConfig
from components.training.batches import CodeBatch, ImageBatch
from components.training.state import FitState

Batch = ImageBatch | CodeBatch


class Observer(Protocol):
    """Who hears of a fit's progress; called on every worker, at the same updates."""

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        """Every few updates: means of the training metrics since the last call."""

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        """After an evaluation, with the weights that were evaluated in place."""

    def checkpoint(self, state: FitState) -> None:
        """Time to save."""


class Compilable(Protocol):
    """An objective that says what of it can be compiled."""

    def parts(self) -> Sequence[nn.Module]:
        """Modules without graph breaks."""


@dataclass(frozen=True, kw_only=True)
class FitData:
    """What a fit reads; each worker gets its own share of each batch."""

    batches: Callable[[int], Iterator[Batch]]
    """Training batches from the given update on, endless."""
    held_out: Callable[[], Iterable[Batch]]
    """This worker's share of the held-out samples, once through."""


def learning_rate_at(config: TrainingConfig, update: int) -> float:
    """Rate at `update` (from 0): linear warm-up, then half a cosine down to final_rate."""
    if update < config.warmup_updates:
        return config.learning_rate * (update + 1) / config.warmup_updates
    span = max(1, config.updates - config.warmup_updates)
    share = (update - config.warmup_updates) / span
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * share)))


def fit_objective(
    objective: nn.Module,
    *,
    config: TrainingConfig,
    seed: int,
    data: FitData,
    observer: Observer,
    resume: Path | None = None,
    device: str = "cpu",
) -> FitState:
    """Fit `objective` in place and return its state; `state.best` holds the weights to keep.

    With torch.distributed initialised, every worker calls this with the same arguments but its own share of `data`.
    """
    _prepare(objective, config, device)
    optimizer = torch.optim.Adam(objective.parameters(), lr=config.learning_rate)
    state = FitState(objective, optimizer, config.weight_ema)
    if resume is not None:
        state.load(resume)
    fit_progress = state.fit_progress
    rank, workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    module: nn.Module = objective
    if workers > 1:
        devices = [torch.device(device)] if device.startswith("cuda") else None
        module = DistributedDataParallel(objective, device_ids=devices, broadcast_buffers=False)
    meter = _Meter(config.batch_size)
    batches = data.batches(fit_progress.update) if not fit_progress.finished else iter(())
    while not fit_progress.finished:
        objective.train()
        torch.manual_seed((seed * 1_000_003 + fit_progress.update) * 4099 + rank)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, fit_progress.update)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss, metrics = module(next(batches).to(device))
        _require_finite(loss, fit_progress.update)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.gradient_clip:
            nn.utils.clip_grad_norm_(objective.parameters(), config.gradient_clip)
        optimizer.step()
        fit_progress.update += 1
        state.update_average()
        meter.add(metrics)
        last = fit_progress.update == config.updates
        if last or fit_progress.update % config.evaluate_every == 0:
            _evaluate(state, objective, data, observer, config, device)
        if meter.due() or last or fit_progress.finished:
            observer.progress(fit_progress.update, *meter.take())
        fit_progress.finished |= last
        if fit_progress.finished or fit_progress.update % config.checkpoint_every == 0:
            observer.checkpoint(state)
    return state


def _prepare(objective: nn.Module, config: TrainingConfig, device: str) -> None:
    """Bring the weights to where and how they are computed with; their names and numbers stay."""
    objective.to(device)
    if config.channels_last:
        objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        for part in cast(Compilable, objective).parts():
            part.compile(fullgraph=True)


def _evaluate(
    state: FitState, objective: nn.Module, data: FitData, observer: Observer, config: TrainingConfig, device: str
) -> None:
    """Measure the averaged weights on the held-out samples; keep them if they are the best; see whether to stop."""
    fit_progress = state.fit_progress
    state.swap_average()
    metrics = evaluate_objective(objective, data.held_out(), device)
    if metrics["loss"] < fit_progress.best_loss:
        fit_progress.best_loss, fit_progress.best_update, fit_progress.worse = metrics["loss"], fit_progress.update, 0
        fit_progress.held_out = metrics
        state.keep_best()
    else:
        fit_progress.worse += 1
    observer.evaluated(fit_progress.update, metrics, objective)
    state.swap_average()
    fit_progress.finished = bool(config.patience) and fit_progress.worse >= config.patience


@torch.no_grad()
def evaluate_objective(objective: nn.Module, batches: Iterable[Batch], device: str = "cpu") -> dict[str, float]:
    """Mean of each metric over `batches`, weighted by samples, over all workers."""
    objective.eval()
    sums: dict[str, float] = {}
    samples = 0
    for batch in batches:
        _, metrics = objective(batch.to(device))
        samples += len(batch.labels)
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch.labels)
    if dist.is_initialized() and dist.get_world_size() > 1:
        shares: list[tuple[dict[str, float], int]] = [({}, 0)] * dist.get_world_size()
        dist.all_gather_object(shares, (sums, samples))
        names = sorted({name for share, _ in shares for name in share})
        sums = {name: sum(share.get(name, 0.0) for share, _ in shares) for name in names}
        samples = sum(count for _, count in shares)
    if samples == 0:
        raise ValueError("the held-out split must hold at least one sample, got none: raise images.held_out")
    return {name: value / samples for name, value in sums.items()}


def _require_finite(loss: Tensor, update: int) -> None:
    if not torch.isfinite(loss):
        raise FloatingPointError(
            f"the loss must be finite, got {loss.item()} at update {update}: lower learning_rate, "
            "set gradient_clip, or look for broken images"
        )


class _Meter:
    """Means of the metrics and samples a second since the last look."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size, self._every = batch_size, 20
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count, self._since = 0, time.monotonic()

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1

    def due(self) -> bool:
        return self._count >= self._every

    def take(self) -> tuple[dict[str, float], float]:
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        rate = self._count * self._batch_size / max(time.monotonic() - self._since, 1e-9)
        self._reset()
        return means, rate

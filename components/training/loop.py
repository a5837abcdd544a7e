"""The one training loop: every model of the pipeline is fitted by it. torch only; Ray is in step.py.

A fit is a function of (objective, config, seed, batches): update u draws its batch from u alone and seeds dropout
from (seed, u, rank), so a fit that resumes from update u continues as if it had never stopped.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.config import TrainingConfig
from components.training.batches import CodeBatch, ImageBatch
from components.training.state import FitState

SEED_STRIDE, RANK_STRIDE = 1_000_003, 4099
"""Primes that keep the random streams of (seed, update, rank) apart: updates of one seed do not reach the next seed's
below a million, ranks of one update do not reach the next update's below 4099 workers."""
UPDATES_PER_REPORT = 20
"""Updates between two progress reports."""
SHORTEST_SECONDS = 1e-9
"""Keeps rates finite where the clock did not move."""

Batch = ImageBatch | CodeBatch


class Observer(Protocol):
    """Receives a fit's progress; called on every worker, at the same updates."""

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        """Called every few updates with the means of the training metrics since the last call."""

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        """Called after an evaluation, while `objective` still holds the evaluated weights."""

    def measured(self, update: int, name: str, metrics: dict[str, float]) -> None:
        """Called when the best weights were measured on the samples `name` of FitData.final."""

    def remark(self, line: str) -> None:
        """Called with a line for a person about what this worker has read."""

    def checkpoint(self, state: FitState) -> None:
        """Called when `state` is due to be saved."""


class SilentObserver:
    """An observer that does nothing, for fits that only measure something."""

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        """Does nothing."""

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        """Does nothing."""

    def measured(self, update: int, name: str, metrics: dict[str, float]) -> None:
        """Does nothing."""

    def remark(self, line: str) -> None:
        """Does nothing."""

    def checkpoint(self, state: FitState) -> None:
        """Does nothing."""


class Compilable(Protocol):
    """An objective that says which of its parts can be compiled."""

    def parts(self) -> Sequence[nn.Module]:
        """Modules that compile without graph breaks."""


@dataclass(frozen=True, kw_only=True)
class FitData:
    """What a fit reads; each worker gets its own slice of each batch."""

    batches: Callable[[int], Iterator[Batch]]
    """(first update) -> training batches from that update on, at least to the last one."""
    held_out: Callable[[], Iterable[Batch]]
    """This worker's slice of the held-out samples, each sample once."""
    final: Mapping[str, Callable[[], Iterable[Batch]]] = field(default_factory=dict)
    """This worker's slices of other samples by name, on which the best weights are measured once, after the fit; the
    same names on every worker."""
    remarks: Callable[[], Sequence[str]] = tuple
    """Lines for a person about what was read since the last call."""


def learning_rate_at(config: TrainingConfig, update: int) -> float:
    """Rate at `update` (from 0): linear warm-up, then half a cosine down to final_rate."""
    if update < config.warmup_updates:
        return config.learning_rate * (update + 1) / config.warmup_updates
    span = max(1, config.updates - config.warmup_updates)
    fraction = (update - config.warmup_updates) / span  # of the decay, 0 .. 1
    cosine = 0.5 * (1 + math.cos(math.pi * fraction))  # from 1 to 0
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * cosine)


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

    With torch.distributed initialised, every worker calls this with the same arguments but its own slice of `data`.
    Raises FloatingPointError when the loss is not finite.
    """
    _prepare(objective, config, device)
    optimizer = torch.optim.Adam(objective.parameters(), lr=config.learning_rate)
    state = FitState(objective, optimizer, config.weight_ema)
    if resume is not None:
        state.load(resume)
    fit_progress = state.fit_progress
    rank, workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    module = _distributed(objective, workers, device)
    meter = _Meter(config.batch_size)
    # A fit that was interrupted after its last update has nothing to read.
    batches = data.batches(fit_progress.update) if not fit_progress.finished else iter(())
    while not fit_progress.finished:  # invariant: each pass depends on (seed, update, rank) and the state alone
        objective.train()
        torch.manual_seed((seed * SEED_STRIDE + fit_progress.update) * RANK_STRIDE + rank)
        # Set from the update's number, not by a scheduler: a resumed fit needs no scheduler state.
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
            _evaluate_average(state, objective, data, observer, config, device)
        if meter.due() or last or fit_progress.finished:
            observer.progress(fit_progress.update, *meter.take())
            for line in data.remarks():
                observer.remark(line)
        fit_progress.finished |= last
        if fit_progress.finished:
            _measure_best(state, objective, data, observer, device)
        if fit_progress.finished or fit_progress.update % config.checkpoint_every == 0:
            observer.checkpoint(state)
    return state


def _prepare(objective: nn.Module, config: TrainingConfig, device: str) -> None:
    """Move the weights to the device and memory format of the fit; their names and values stay."""
    objective.to(device)
    if config.channels_last:
        objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        for part in cast(Compilable, objective).parts():
            part.compile(fullgraph=True)  # a graph break raises instead of slowing the fit down


def _distributed(objective: nn.Module, workers: int, device: str) -> nn.Module:
    """The objective itself for one worker; for several, wrapped so that their gradients are averaged."""
    if workers == 1:
        return objective
    devices = [torch.device(device)] if device.startswith("cuda") else None
    # No broadcast of buffers: those of the quantizers are equal on all workers, and no other part has any.
    return DistributedDataParallel(objective, device_ids=devices, broadcast_buffers=False)


def _evaluate_average(
    state: FitState, objective: nn.Module, data: FitData, observer: Observer, config: TrainingConfig, device: str
) -> None:
    """Measure the averaged weights on the held-out samples; keep them if they are the best; decide whether to stop."""
    fit_progress = state.fit_progress
    state.swap_average()
    # From here to the second swap, the objective holds the averaged weights.
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


def _measure_best(state: FitState, objective: nn.Module, data: FitData, observer: Observer, device: str) -> None:
    """Measure the best weights on each set of `data.final`; the objective keeps its own weights."""
    if not data.final or not state.best:
        return
    own_weights = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.load_state_dict(state.best)
    for name, batches in data.final.items():
        metrics = evaluate_objective(objective, batches(), device)
        state.fit_progress.final[name] = metrics
        observer.measured(state.fit_progress.update, name, metrics)
    objective.load_state_dict(own_weights)


@torch.no_grad()
def evaluate_objective(objective: nn.Module, batches: Iterable[Batch], device: str = "cpu") -> dict[str, float]:
    """Mean of each metric over `batches`, weighted by samples, over all workers; ValueError without any sample."""
    objective.eval()
    sums: dict[str, float] = {}
    samples = 0
    for batch in batches:
        _, metrics = objective(batch.to(device))
        samples += len(batch.labels)
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch.labels)
    if dist.is_initialized() and dist.get_world_size() > 1:
        per_worker: list[tuple[dict[str, float], int]] = [({}, 0)] * dist.get_world_size()
        dist.all_gather_object(per_worker, (sums, samples))
        names = sorted({name for worker_sums, _ in per_worker for name in worker_sums})  # a worker may have no samples
        sums = {name: sum(worker_sums.get(name, 0.0) for worker_sums, _ in per_worker) for name in names}
        samples = sum(count for _, count in per_worker)
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
    """Means of the metrics, and samples per second, since the last report."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count, self._since = 0, time.monotonic()

    def add(self, metrics: dict[str, Tensor]) -> None:
        for name, value in metrics.items():
            # Summed on the device: reading a value here would wait for the GPU at every update.
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._count += 1

    def due(self) -> bool:
        return self._count >= UPDATES_PER_REPORT

    def take(self) -> tuple[dict[str, float], float]:
        means = {name: float(value) / self._count for name, value in self._sums.items()}
        rate = self._count * self._batch_size / max(time.monotonic() - self._since, SHORTEST_SECONDS)
        self._reset()
        return means, rate

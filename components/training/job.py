"""One fit as everybody sees it: what is asked for, what comes out, and what it reports meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components.config import StepResources, TrainingConfig
from components.training.loop import FitData
from components.training.messages import EvaluationMessage, ProgressMessage
from components.training.state import STATE_NUMBERS, STATE_TENSORS, FitProgress, read_fit_progress
from components.workspace import Workspace

CHECKPOINT_FILES = (STATE_TENSORS, STATE_NUMBERS)


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """One model to fit. The callables run in the workers, so they hold settings and URIs, never data."""

    build: Callable[[], nn.Module]
    """The objective, freshly initialised from torch's seed."""
    data: Callable[[int, int], FitData]
    """(rank, workers) -> that worker's slice of the data."""
    pictures: Callable[[nn.Module], dict[str, bytes]] | None = None
    """Fixed-seed PNGs of the evaluated objective, made by worker 0."""
    config: TrainingConfig
    resources: StepResources


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a fit gives."""

    weights: dict[str, Tensor]
    """Best weights by held-out loss, by the names of the objective's `.model`."""
    fit_progress: FitProgress


def read_fit_result(folder: Path) -> FitResult:
    """The result that a fit's last checkpoint, in `folder`, holds."""
    prefix = "best.model."
    tensors = load_file(folder / STATE_TENSORS)
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return FitResult(weights=weights, fit_progress=read_fit_progress(folder))


class FitReporter:
    """Passes what a fit tells to the person and the journal."""

    def __init__(self, job: FitJob, workspace: Workspace) -> None:
        self._job, self._workspace = job, workspace
        self._held_out = ""

    def report(self, message: ProgressMessage | EvaluationMessage) -> None:
        """Pass on one message."""
        if isinstance(message, EvaluationMessage):
            self._report_evaluation(message)
        else:
            self._report_progress(message)

    def finish(self) -> None:
        """Take the progress line away."""
        self._workspace.progress.finish(self._workspace.name)

    def _report_progress(self, message: ProgressMessage) -> None:
        training = {f"train/{name}": value for name, value in message.metrics.items()}
        rate = {"train/images_per_second": message.images_per_second}
        self._workspace.journal.metrics(message.update, training | rate)
        self._workspace.progress.update(
            self._workspace.name,
            done=message.update,
            total=self._job.config.updates,
            unit="updates",
            rate=message.images_per_second,
            note=f"loss {message.metrics['loss']:.4f}{self._held_out}",
        )

    def _report_evaluation(self, message: EvaluationMessage) -> None:
        held_out = {f"held_out/{name}": value for name, value in message.metrics.items()}
        self._workspace.journal.metrics(message.update, held_out)
        for name, png in message.pictures.items():
            self._workspace.journal.picture(name, png, message.update)
        self._held_out = f", held out {message.metrics['loss']:.4f}"


def limit_threads(resources: StepResources) -> None:
    """Let torch use as many threads as the worker has CPUs, so that workers of one machine do not compete."""
    torch.set_num_threads(max(1, int(resources.cpus)))

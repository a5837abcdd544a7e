"""One fit: the job, its result, and its progress reports."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from components.config import StepResources, TrainingConfig
from components.training.loop import FitData
from components.training.messages import EvaluationMessage, FinalMessage, ProgressMessage, RemarkMessage
from components.training.state import STATE_NUMBERS, STATE_TENSORS, FitProgress, read_fit_progress
from components.workspace import Workspace

CHECKPOINT_FILES = (STATE_TENSORS, STATE_NUMBERS)


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """One model to fit. The callables run in the workers, so they hold settings and URIs, never data."""

    build: Callable[[], nn.Module]
    """The objective, freshly initialised from torch's seed."""
    data: Callable[[int, int], FitData]
    """(rank, workers) -> the data of worker `rank`."""
    pictures: Callable[[nn.Module], dict[str, bytes]] | None = None
    """Fixed-seed PNGs of the evaluated objective, made by worker 0."""
    config: TrainingConfig
    resources: StepResources


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Result of a fit."""

    weights: dict[str, Tensor]
    """Best weights by held-out loss, under their names in the objective's `.model`."""
    fit_progress: FitProgress


def read_fit_result(folder: Path) -> FitResult:
    """The result stored in a fit's last checkpoint, which is in `folder`."""
    prefix = "best.model."
    tensors = load_file(folder / STATE_TENSORS)
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return FitResult(weights=weights, fit_progress=read_fit_progress(folder))


class FitReporter:
    """Shows a fit's messages in the progress line and writes them to the journal."""

    def __init__(self, job: FitJob, workspace: Workspace) -> None:
        self._job, self._workspace = job, workspace
        self._held_out = ""

    def report(self, message: ProgressMessage | EvaluationMessage | FinalMessage | RemarkMessage) -> None:
        """Show and log one message."""
        if isinstance(message, EvaluationMessage):
            self._report_evaluation(message)
        elif isinstance(message, RemarkMessage):
            self._workspace.progress.say(f"{self._workspace.name}: {message.line}")
        elif isinstance(message, FinalMessage):
            self._report_final(message)
        else:
            self._report_progress(message)

    def finish(self) -> None:
        """Remove the progress line."""
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

    def _report_final(self, message: FinalMessage) -> None:
        final = {f"final_{message.name}/{name}": value for name, value in message.metrics.items()}
        self._workspace.journal.metrics(message.update, final)
        updates = self._job.config.updates
        note = f"best weights measured on {message.name}: {message.metrics['loss']:.4f}"
        self._workspace.progress.update(
            self._workspace.name, done=message.update, total=updates, unit="updates", note=note
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

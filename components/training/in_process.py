"""The training loop in this process, without Ray: for tests, benchmarks and plain loops over the DAG."""

import tempfile
from pathlib import Path

import torch
from torch import nn

from components.store import objects
from components.training.checkpoints import newest_checkpoint
from components.training.job import CHECKPOINT_FILES, FitJob, FitReporter, FitResult, limit_threads, read_fit_result
from components.training.loop import fit_objective
from components.training.messages import EvaluationMessage, FinalMessage, ProgressMessage, RemarkMessage
from components.training.state import FitState
from components.workspace import Workspace

IN_PROCESS_FOLDER = "checkpoint"
"""Below the step's work folder: the last checkpoint of a fit in this process."""


def fit_in_process(job: FitJob, workspace: Workspace) -> FitResult:
    """Fit `job` with one worker and without Ray; the weights equal those of one Ray Train worker bit for bit.

    Raises ValueError when the job asks for several workers.
    """
    if job.resources.workers != 1:
        raise ValueError(f"a fit in this process has one worker, got resources.workers={job.resources.workers}")
    folder = objects.join(workspace.work_folder, IN_PROCESS_FOLDER)
    threads = torch.get_num_threads()
    reporter = FitReporter(job, workspace)
    # The caller's random stream is restored afterwards, as if the fit had run in another process.
    with tempfile.TemporaryDirectory() as local, torch.random.fork_rng(devices=[]):
        observer = _InProcessObserver(job, workspace, reporter, folder, Path(local))
        limit_threads(job.resources)
        torch.manual_seed(workspace.seed)
        resume = newest_checkpoint(workspace.uri)
        if resume is not None:
            objects.download(resume, Path(local))
        try:
            fit_objective(
                job.build(),
                config=job.config,
                seed=workspace.seed,
                data=job.data(0, 1),
                observer=observer,
                resume=None if resume is None else Path(local),
                device="cuda" if job.resources.gpus else "cpu",
            )
        finally:
            # also after an error: the number of threads belongs to the whole process
            torch.set_num_threads(threads)
            reporter.finish()
        return read_fit_result(Path(local))


class _InProcessObserver:
    """The training loop's observer in this process."""

    def __init__(self, job: FitJob, workspace: Workspace, reporter: FitReporter, folder: str, local: Path) -> None:
        self._job, self._workspace, self._reporter = job, workspace, reporter
        self._folder, self._local = folder, local

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        self._reporter.report(ProgressMessage(update, metrics, images_per_second))

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        pictures = self._job.pictures(objective) if self._job.pictures else {}
        self._reporter.report(EvaluationMessage(update, metrics, pictures))

    def measured(self, update: int, name: str, metrics: dict[str, float]) -> None:
        self._reporter.report(FinalMessage(update, name, metrics))

    def remark(self, line: str) -> None:
        self._reporter.report(RemarkMessage(line))

    def checkpoint(self, state: FitState) -> None:
        self._workspace.lease.check()
        state.save(self._local)
        for name in CHECKPOINT_FILES:
            objects.write_bytes(objects.join(self._folder, name), (self._local / name).read_bytes())

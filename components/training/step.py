"""Running the training loop: on Ray Train (workers, checkpoints, resume, lease), or in this process."""

import contextlib
import functools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from safetensors.torch import load_file
from torch import Tensor, nn

from components.cluster.step import produce_while_listening
from components.config import StepResources, TrainingConfig
from components.store import commits, objects
from components.store.lease import Lease, heartbeat
from components.training.loop import FitData, fit_objective
from components.training.messages import EvaluationMessage, ProgressMessage
from components.training.state import STATE_NUMBERS, STATE_TENSORS, FitProgress, FitState, read_fit_progress
from components.workspace import ComputeCluster, Workspace

FIT_POLL_SECONDS = 0.5
"""Time between two looks into the mailbox."""
FIT_FOLDER = "fit"
"""Ray Train's folder below the step's work folder."""
IN_PROCESS_FOLDER = "checkpoint"
"""The same for a fit in this process."""
CHECKPOINT_FILES = (STATE_TENSORS, STATE_NUMBERS)
CHECKPOINTS_KEPT = 2
MAX_WORKER_FAILURES = 2
"""Times that Ray Train replaces workers that died before the step fails."""


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


def run_fit(job: FitJob, *, workspace: Workspace) -> FitResult:
    """Fit `job` on the workspace's cluster, or in this process where it has none; report progress and metrics.

    A call after any death continues from the last checkpoint kept under the workspace.
    """
    cluster = workspace.cluster
    return _fit_in_process(job, workspace) if cluster is None else _fit_on_ray(job, cluster, workspace)


def _read_result(folder: Path) -> FitResult:
    """The result that a fit's last checkpoint, in `folder`, holds."""
    prefix = "best.model."
    tensors = load_file(folder / STATE_TENSORS)
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return FitResult(weights=weights, fit_progress=read_fit_progress(folder))


class _FitReporter:
    """Passes what a fit tells to the person and the journal."""

    def __init__(self, job: FitJob, workspace: Workspace) -> None:
        self._job, self._workspace = job, workspace
        self._held_out = ""

    def report(self, message: ProgressMessage | EvaluationMessage) -> None:
        if isinstance(message, EvaluationMessage):
            self._report_evaluation(message)
        else:
            self._report_progress(message)

    def finish(self) -> None:
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


# --- in this process --------------------------------------------------------------------------------------------------


def _fit_in_process(job: FitJob, workspace: Workspace) -> FitResult:
    """The same fit by one worker without Ray: the same weights, bit for bit, as one Ray Train worker's."""
    if job.resources.workers != 1:
        raise ValueError(f"a fit in this process has one worker, got resources.workers={job.resources.workers}")
    folder = objects.join(workspace.uri, commits.WORK_FOLDER, IN_PROCESS_FOLDER)
    threads = torch.get_num_threads()
    reporter = _FitReporter(job, workspace)
    with tempfile.TemporaryDirectory() as local, torch.random.fork_rng(devices=[]):
        observer = _InProcessObserver(job, workspace, reporter, folder, Path(local))
        _limit_threads(job.resources)
        torch.manual_seed(workspace.seed)
        try:
            fit_objective(
                job.build(),
                config=job.config,
                seed=workspace.seed,
                data=job.data(0, 1),
                observer=observer,
                resume=observer.stored_checkpoint(),
                device="cuda" if job.resources.gpus else "cpu",
            )
        finally:
            torch.set_num_threads(threads)
            reporter.finish()
        return _read_result(Path(local))


class _InProcessObserver:
    """The training loop's observer in this process."""

    def __init__(self, job: FitJob, workspace: Workspace, reporter: _FitReporter, folder: str, local: Path) -> None:
        self._job, self._workspace, self._reporter = job, workspace, reporter
        self._folder, self._local = folder, local

    def stored_checkpoint(self) -> Path | None:
        """Local copy of the checkpoint that an interrupted fit left; None without a whole one."""
        if not set(CHECKPOINT_FILES) <= set(objects.object_sizes(self._folder)):
            return None
        objects.download(self._folder, self._local)
        return self._local

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        self._reporter.report(ProgressMessage(update, metrics, images_per_second))

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        pictures = self._job.pictures(objective) if self._job.pictures else {}
        self._reporter.report(EvaluationMessage(update, metrics, pictures))

    def checkpoint(self, state: FitState) -> None:
        self._workspace.lease.check()
        state.save(self._local)
        for name in CHECKPOINT_FILES:
            objects.write_bytes(objects.join(self._folder, name), (self._local / name).read_bytes())


# --- on Ray Train: the driver -----------------------------------------------------------------------------------------


def _fit_on_ray(job: FitJob, cluster: ComputeCluster, workspace: Workspace) -> FitResult:
    work = objects.join(workspace.uri, commits.WORK_FOLDER)
    _delete_broken_checkpoints(work, workspace)
    reporter = _FitReporter(job, workspace)

    def listen() -> None:
        for message in ray.get(cluster.mailbox.take.remote(workspace.name)):
            reporter.report(message)

    with cluster.reserve(workspace.name, job.resources):
        trainer = _trainer(job, cluster, workspace, work)
        try:
            (result,) = produce_while_listening(lambda: _train(trainer), listen, FIT_POLL_SECONDS)
        finally:
            reporter.finish()
    with tempfile.TemporaryDirectory() as folder:
        result.checkpoint.to_directory(folder)
        return _read_result(Path(folder))


def _trainer(job: FitJob, cluster: ComputeCluster, workspace: Workspace, work: str) -> "_Trainer":
    filesystem, path = objects.arrow_filesystem(work)
    resources = job.resources
    return (_LocalTrainer if cluster.local else _Trainer)(
        functools.partial(_worker, job, workspace.name, workspace.seed, workspace.lease, cluster.mailbox),
        backend_config=_process_group() if resources.workers > 1 else None,
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=FIT_FOLDER,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            failure_config=ray.train.FailureConfig(max_failures=MAX_WORKER_FAILURES),
        ),
    )


class _Trainer(DataParallelTrainer):
    """Ray Train without the processes that nothing here needs: each costs seconds of CPU, for each model."""

    unneeded: tuple[type, ...] = (DatasetsCallback,)  # images are read inside the workers (components/images/feed.py)

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, self.unneeded)]


class _LocalTrainer(_Trainer):
    """On a cluster that ends with its driver, nothing has to clean up after a controller."""

    unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)


def _process_group() -> Any:
    """For several workers. One needs none, and its controller is spared the import of torch."""
    from ray.train.torch import TorchConfig

    return TorchConfig()


def _train(trainer: _Trainer) -> Iterable[Any]:
    """The trainer's one result; raises the worker's own error instead of Ray Train's wrapping of it."""
    try:
        return [trainer.fit()]
    except Exception as error:
        raise _worker_error(error) from error


def _worker_error(error: Exception) -> BaseException:
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return error
    failure = next(iter(failures.values()))
    return getattr(failure, "cause", None) or getattr(failure, "_base_exc", None) or failure


def _delete_broken_checkpoints(work: str, workspace: Workspace) -> None:
    """Ray Train trusts its record of checkpoints: when one of them is missing, start over instead of failing."""
    stored = objects.object_sizes(objects.join(work, FIT_FOLDER))
    record = "checkpoint_manager_snapshot.json"
    if record not in stored:
        return
    folders = {name.split("/")[0] for name in stored if name.startswith("checkpoint_") and "/" in name}
    whole = {folder for folder in folders if {f"{folder}/{name}" for name in CHECKPOINT_FILES} <= set(stored)}
    recorded = json.loads(objects.read_bytes(objects.join(work, FIT_FOLDER, record)))
    results = [*recorded["checkpoint_results"], recorded["latest_checkpoint_result"]]
    broken = sorted({result["checkpoint_dir_name"] for result in results if result} - whole)
    if broken:
        workspace.progress.say(f"{workspace.name}: checkpoint {broken[0]} is missing or cut; fitting starts over")
        objects.delete(work)


# --- on Ray Train: in the workers -------------------------------------------------------------------------------------


def _worker(job: FitJob, name: str, seed: int, lease: Lease, mailbox: Any) -> None:
    """One Ray Train worker: build, resume, fit."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    _limit_threads(job.resources)
    torch.manual_seed(seed)
    objective = job.build()
    observer = _WorkerObserver(job, name, mailbox, lease, rank)
    with _checkpoint_folder() as resume, contextlib.ExitStack() as stack:
        if rank == 0:
            stack.enter_context(heartbeat(lease))  # an orphan whose driver died still shows that it writes
        fit_objective(
            objective,
            config=job.config,
            seed=seed,
            data=job.data(rank, workers),
            observer=observer,
            resume=resume,
            device=_device() if job.resources.gpus else "cpu",
        )
    observer.close()


def _limit_threads(resources: StepResources) -> None:
    torch.set_num_threads(max(1, int(resources.cpus)))


@contextlib.contextmanager
def _checkpoint_folder() -> Iterator[Path | None]:
    """Local folder with the checkpoint to resume from; None at the start of a fit."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _device() -> str:
    from ray.train.torch import get_device

    return str(get_device())


class _WorkerObserver:
    """The training loop's observer in a Ray Train worker."""

    def __init__(self, job: FitJob, name: str, mailbox: Any, lease: Lease, rank: int) -> None:
        self._job, self._name, self._mailbox, self._lease, self._rank = job, name, mailbox, lease, rank
        self._last_post: Any = None

    def close(self) -> None:
        """Wait until the last message has arrived: the driver looks once more when the fit has ended."""
        if self._last_post is not None:
            ray.get(self._last_post)

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        if self._rank == 0:
            self._last_post = self._mailbox.post.remote(self._name, ProgressMessage(update, metrics, images_per_second))

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        if self._rank == 0:
            pictures = self._job.pictures(objective) if self._job.pictures else {}
            self._last_post = self._mailbox.post.remote(self._name, EvaluationMessage(update, metrics, pictures))

    def checkpoint(self, state: FitState) -> None:
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if self._rank == 0:
                self._lease.check()
                state.save(Path(folder))
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"update": state.fit_progress.update}, checkpoint=saved)

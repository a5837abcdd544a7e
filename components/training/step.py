"""Running the training loop: on Ray Train (workers, checkpoints, resume, lease), or in this process."""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import (
    DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE,
    RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR,
    get_env_vars_to_propagate,
)
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from torch import nn

from components.cluster.listening import check_lost, produce_while_listening
from components.store import objects
from components.store.lease import Lease, heartbeat
from components.training.checkpoints import newest_checkpoint
from components.training.failures import FirstErrorThatLasts, cause_of
from components.training.in_process import fit_in_process
from components.training.job import FitJob, FitReporter, FitResult, limit_threads, read_fit_result
from components.training.loop import Batch, FitData, fit_objective
from components.training.messages import EvaluationMessage, FinalMessage, ProgressMessage, RemarkMessage
from components.training.state import FitState
from components.workspace import ComputeCluster, Workspace

RAY_NODE_ID_KEY = "ray.io/node-id"
"""Label by which Ray places an actor on a given node."""
FIT_POLL_SECONDS = 0.5
"""Seconds between two reads of the mailbox."""
FIT_FOLDER = "fit"
"""Ray Train's folder below the attempt's work folder."""
CHECKPOINTS_KEPT = 2
MAX_WORKER_FAILURES = 2
"""How often Ray Train replaces dead workers before the step fails."""
ABORT_SECONDS = 8.0
"""Seconds in which Ray Train's controller must end its workers when the fit is left; then it is killed."""


def run_fit(job: FitJob, *, workspace: Workspace) -> FitResult:
    """Fit `job` on the workspace's cluster, or in this process where it has none; report progress and metrics.

    When an earlier attempt was killed, the fit resumes from its last whole checkpoint; what it still writes, if it only
    seemed dead, goes into a folder of its own.
    """
    cluster = workspace.cluster
    return fit_in_process(job, workspace) if cluster is None else _fit_on_ray(job, cluster, workspace)


# --- on Ray Train: the driver -----------------------------------------------------------------------------------------


def _fit_on_ray(job: FitJob, cluster: ComputeCluster, workspace: Workspace) -> FitResult:
    resume = newest_checkpoint(workspace.uri)
    if resume is not None and (finished := _finished_fit(resume)) is not None:
        return finished
    reporter = FitReporter(job, workspace)

    def listen() -> None:
        for message in ray.get(cluster.mailbox.take.remote(workspace.name)):
            reporter.report(message)

    with cluster.reserve(workspace.name, job.resources):
        trainer = _trainer(job, cluster, workspace, resume)
        try:
            (result,) = produce_while_listening(
                lambda: _train(trainer),
                listen,
                stop=trainer.stop,
                lease=workspace.lease,
                poll_seconds=FIT_POLL_SECONDS,
            )
        finally:
            reporter.finish()
    with tempfile.TemporaryDirectory() as folder:
        result.checkpoint.to_directory(folder)
        return read_fit_result(Path(folder))


def _finished_fit(checkpoint: str) -> FitResult | None:
    """The result of an attempt that was killed after the fit's last update; None when the fit is not finished."""
    with tempfile.TemporaryDirectory() as folder:
        objects.download(checkpoint, Path(folder))
        result = read_fit_result(Path(folder))
    return result if result.fit_progress.finished else None


def _trainer(job: FitJob, cluster: ComputeCluster, workspace: Workspace, resume: str | None) -> "_Trainer":
    filesystem, path = objects.arrow_filesystem(workspace.work_folder)
    resources = job.resources
    return (_LocalTrainer if cluster.local else _Trainer)(
        functools.partial(_worker, job, workspace.name, workspace.seed, workspace.lease, cluster.mailbox, resume),
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
    """Ray Train that can be stopped, and that does not repeat an error which comes again. It has no callbacks that this
    project does not need: each starts a process, seconds of CPU per model."""

    unneeded: tuple[type, ...] = (DatasetsCallback,)  # images are read inside the workers (components/images/feed.py)
    _controller: Any = None

    def stop(self) -> None:
        """End the workers, and with them `fit`, which then raises. Does nothing before the fit has started."""
        if self._controller is not None:
            ray.wait([self._controller.abort.remote()], timeout=ABORT_SECONDS)
            ray.kill(self._controller)  # its workers are its own: they end with it

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, self.unneeded)]

    def _initialize_and_run_controller(self, **settings: Any) -> ray.train.Result:
        """As in Ray Train, which drops the controller's handle and thereby all means to stop it."""
        here = ray.get_runtime_context().get_node_id()
        quiet = {RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR: DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE}
        controller_class: Any = ray.remote(
            num_cpus=0,
            label_selector={RAY_NODE_ID_KEY: here},
            runtime_env={"env_vars": quiet | get_env_vars_to_propagate()},
        )(TrainController)
        policy = FirstErrorThatLasts(settings["failure_policy"].failure_config)
        self._controller = controller_class.remote(**(settings | {"failure_policy": policy}))
        ray.get(self._controller.run.remote())
        return ray.get(self._controller.get_result.remote())


class _LocalTrainer(_Trainer):
    """For a cluster that ends with its driver: placement groups end with it and need no cleaner."""

    unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)


def _process_group() -> Any:
    """Connects several workers. A single worker needs none, so that its controller need not import torch."""
    from ray.train.torch import TorchConfig

    return TorchConfig()


def _train(trainer: _Trainer) -> Iterable[Any]:
    """The trainer's one result; raises the error of the worker itself, not Ray Train's wrapper."""
    try:
        return [trainer.fit()]
    except Exception as error:
        raise _worker_error(error) from error


def _worker_error(error: Exception) -> BaseException:
    failures = getattr(error, "worker_failures", None)
    if not failures:
        return error
    return cause_of(failures)


# --- on Ray Train: in the workers -------------------------------------------------------------------------------------


def _worker(job: FitJob, name: str, seed: int, lease: Lease, mailbox: Any, resume_uri: str | None) -> None:
    """One Ray Train worker: build, resume (from a checkpoint of this attempt, else from `resume_uri`), fit."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    lease.check()  # a worker that replaces a dead one may come after another run took over
    limit_threads(job.resources)
    torch.manual_seed(seed)
    objective = job.build()
    observer = _WorkerObserver(job, name, mailbox, lease, rank)
    with _checkpoint_folder(resume_uri) as resume, contextlib.ExitStack() as stack:
        if rank == 0:
            stack.enter_context(heartbeat(lease))  # also after the driver died: no other run may write meanwhile
        fit_objective(
            objective,
            config=job.config,
            seed=seed,
            data=_while_held(lease, job.data(rank, workers)),
            observer=observer,
            resume=resume,
            device=_device() if job.resources.gpus else "cpu",
        )
    observer.close()


def _while_held(lease: Lease, data: FitData) -> FitData:
    """`data` whose batches end with LeaseLost as soon as the heartbeat has found the lease lost."""

    def guarded(batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            check_lost(lease)
            yield batch

    def guard(read: Callable[[], Iterable[Batch]]) -> Callable[[], Iterable[Batch]]:
        return lambda: guarded(read())

    return FitData(
        batches=lambda first_update: guarded(data.batches(first_update)),
        held_out=guard(data.held_out),
        final={name: guard(read) for name, read in data.final.items()},
        remarks=data.remarks,
    )


@contextlib.contextmanager
def _checkpoint_folder(resume_uri: str | None) -> Iterator[Path | None]:
    """Local folder with the checkpoint to resume from; None at the start of a fit."""
    checkpoint = ray.train.get_checkpoint()
    with contextlib.ExitStack() as stack:
        if checkpoint is not None:
            yield Path(stack.enter_context(checkpoint.as_directory()))
        elif resume_uri is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            objects.download(resume_uri, folder)
            yield folder
        else:
            yield None


def _device() -> str:
    from ray.train.torch import get_device

    return str(get_device())


class _WorkerObserver:
    """The training loop's observer in a Ray Train worker."""

    def __init__(self, job: FitJob, name: str, mailbox: Any, lease: Lease, rank: int) -> None:
        self._job, self._name, self._mailbox, self._lease, self._rank = job, name, mailbox, lease, rank
        self._last_post: Any = None

    def close(self) -> None:
        """Wait until the last message has arrived: the driver reads the mailbox once more after the fit has ended."""
        if self._last_post is not None:
            ray.get(self._last_post)

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        if self._rank == 0:
            self._last_post = self._mailbox.post.remote(self._name, ProgressMessage(update, metrics, images_per_second))

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        if self._rank == 0:
            pictures = self._job.pictures(objective) if self._job.pictures else {}
            self._last_post = self._mailbox.post.remote(self._name, EvaluationMessage(update, metrics, pictures))

    def measured(self, update: int, name: str, metrics: dict[str, float]) -> None:
        if self._rank == 0:
            self._last_post = self._mailbox.post.remote(self._name, FinalMessage(update, name, metrics))

    def remark(self, line: str) -> None:
        self._last_post = self._mailbox.post.remote(self._name, RemarkMessage(line))

    def checkpoint(self, state: FitState) -> None:
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if self._rank == 0:
                self._lease.check()
                state.save(Path(folder))
                saved = ray.train.Checkpoint.from_directory(folder)
            # On every rank: Ray Train waits until all workers have reported.
            ray.train.report({"update": state.fit_progress.update}, checkpoint=saved)

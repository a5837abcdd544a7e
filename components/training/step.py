"""Running the training loop on Ray Train: workers, checkpoints, resume, progress, lease."""

import contextlib
import functools
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.train
import torch
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from safetensors.torch import load_file
from torch import Tensor, nn

from components.cluster.step import Cluster, silence_ray_data
from components.config import StepResources, TrainingConfig
from components.images.config import ImagesConfig
from components.images.pixels import PixelReader
from components.images.snapshot import read_snapshot
from components.images.split import HELD_OUT, TRAIN
from components.store import commits, objects
from components.store.lease import Lease, heartbeat
from components.training.batches import ImageBatch
from components.training.loop import FitData, fit_objective
from components.training.messages import EvaluationMessage, ProgressMessage
from components.training.sample_order import batch_rows, worker_slice
from components.training.state import STATE_NUMBERS, STATE_TENSORS, FitProgress, FitState, read_fit_progress
from components.workspace import Workspace

IMAGES_PER_TASK = 512
"""Images a Ray Data task decodes."""
TASKS_PER_PLAN = 2048
"""Tasks planned at a time: bounds the driver's memory in a long fit."""
DATA_TASK_CPUS = 0.5
"""Share of a CPU that a decoding task asks for, so that readers of two fits fit into the CPU kept for them."""
FIT_POLL_SECONDS = 0.5
"""Seconds between two looks at the mailbox."""


@dataclass(frozen=True, kw_only=True)
class FitJob:
    """One model to fit. The callables run in the workers, so they hold settings and URIs, never data."""

    build: Callable[[], nn.Module]
    """The objective, freshly initialised from torch's seed."""
    data: Callable[[int, int], FitData]
    """(rank, workers) -> that worker's share of the data."""
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


def run_fit(job: FitJob, *, cluster: Cluster, workspace: Workspace) -> FitResult:
    """Fit `job` on the cluster and wait for it, telling progress and metrics as they come.

    A call after any death goes on from the last checkpoint kept under the workspace.
    """
    work = objects.join(workspace.uri, commits.WORK_FOLDER)
    _forget_if_broken(work, workspace)
    filesystem, path = objects.arrow_filesystem(work)
    with cluster.reserve(workspace.name, job.resources):
        trainer = (_LocalTrainer if cluster.local else _Trainer)(
            functools.partial(_worker, job, workspace.name, workspace.seed, workspace.lease, cluster.mailbox),
            backend_config=_process_group() if job.resources.workers > 1 else None,
            scaling_config=ray.train.ScalingConfig(
                num_workers=job.resources.workers,
                use_gpu=job.resources.gpus > 0,
                resources_per_worker={"CPU": job.resources.cpus}
                | ({"GPU": job.resources.gpus} if job.resources.gpus else {}),
            ),
            run_config=ray.train.RunConfig(
                name="fit",
                storage_path=path,
                storage_filesystem=filesystem,
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
                failure_config=ray.train.FailureConfig(max_failures=2),
            ),
        )
        listener = _Listener(job, cluster, workspace)
        result = _fit_listening(trainer, listener)
    return _fitted(result.checkpoint)


class _Trainer(DataParallelTrainer):
    """Ray Train without the processes that nothing here needs: each costs seconds of CPU, for each model."""

    unneeded: tuple[type, ...] = (DatasetsCallback,)  # images are read inside the workers (ImageFeed)

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, self.unneeded)]


class _LocalTrainer(_Trainer):
    """On a cluster that ends with its driver nobody has to clean up after a controller."""

    unneeded = (DatasetsCallback, PlacementGroupCleanerCallback)


def _process_group() -> Any:
    """For several workers; one does without it, and its controller without importing torch."""
    from ray.train.torch import TorchConfig

    return TorchConfig()


def _forget_if_broken(work: str, workspace: Workspace) -> None:
    """Ray Train trusts its record of checkpoints; when one of them is gone, start over instead of failing."""
    found = objects.object_sizes(objects.join(work, "fit"))
    folders = {name.split("/")[0] for name in found if name.startswith("checkpoint_") and "/" in name}
    whole = {folder for folder in folders if {f"{folder}/{STATE_TENSORS}", f"{folder}/{STATE_NUMBERS}"} <= set(found)}
    record = next((name for name in found if name == "checkpoint_manager_snapshot.json"), None)
    if record is None:
        return
    kept = json.loads(objects.read_bytes(objects.join(work, "fit", record)))
    named = {
        result["checkpoint_dir_name"]
        for result in [*kept["checkpoint_results"], kept["latest_checkpoint_result"]]
        if result
    }
    if not named <= whole:
        workspace.progress.say(
            f"{workspace.name}: checkpoint {sorted(named - whole)[0]} is gone or cut; fitting starts over"
        )
        objects.delete(work)


def _fit_listening(trainer: _Trainer, listener: "_Listener") -> Any:
    """Run the trainer in a thread and listen in this one."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome.append(trainer.fit())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(FIT_POLL_SECONDS)
        listener.look()
    listener.look()
    listener.close()
    if isinstance(outcome[0], BaseException):
        raise _cause(outcome[0])
    return outcome[0]


def _cause(error: BaseException) -> BaseException:
    """The worker's own error instead of Ray Train's wrapping of it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        inner = next(iter(failures.values()))
        return getattr(inner, "cause", None) or getattr(inner, "_base_exc", None) or inner
    return error


class _Listener:
    """Takes the workers' notes off the board and passes them to the person and the journal."""

    def __init__(self, job: FitJob, cluster: Cluster, workspace: Workspace) -> None:
        self._job, self._mailbox, self._workspace = job, cluster.mailbox, workspace
        self._held_out = ""

    def look(self) -> None:
        for note in ray.get(self._mailbox.take.remote(self._workspace.name)):
            if isinstance(note, EvaluationMessage):
                self._evaluated(note)
            else:
                self._progressed(note)

    def close(self) -> None:
        self._workspace.progress.finish(self._workspace.name)

    def _progressed(self, note: ProgressMessage) -> None:
        training = {f"train/{name}": value for name, value in note.metrics.items()}
        self._workspace.journal.metrics(note.update, training | {"train/images_per_second": note.images_per_second})
        line = f"loss {note.metrics['loss']:.4f}{self._held_out}"
        self._workspace.progress.update(
            self._workspace.name,
            done=note.update,
            total=self._job.config.updates,
            unit="updates",
            rate=note.images_per_second,
            note=line,
        )

    def _evaluated(self, note: EvaluationMessage) -> None:
        self._workspace.journal.metrics(
            note.update, {f"held_out/{name}": value for name, value in note.metrics.items()}
        )
        for name, png in note.pictures.items():
            self._workspace.journal.picture(name, png, note.update)
        self._held_out = f", held out {note.metrics['loss']:.4f}"


def _fitted(checkpoint: Any) -> FitResult:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.to_directory(folder)
        tensors = load_file(Path(folder) / STATE_TENSORS)
        fit_progress = read_fit_progress(Path(folder))
    prefix = "best.model."
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return FitResult(weights=weights, fit_progress=fit_progress)


# --- images, through Ray Data -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ImageFeed:
    """Images of a snapshot for one fit. Makes each worker's share of each batch; every draw follows from the update."""

    folder: str
    """URI of the snapshot."""
    images: ImagesConfig
    pixel_seed: int
    """Seed of the snapshot's augmented copies."""
    config: TrainingConfig
    order_seed: int
    """Seed of the order in which rows are drawn."""
    readers: int
    """Ray Data tasks that decode for a worker at a time; 0: the worker decodes for itself."""

    def __call__(self, rank: int, workers: int) -> FitData:
        """The share of worker `rank`."""
        return FitData(
            batches=lambda start: self._batches(start, rank, workers), held_out=lambda: self._held_out(rank, workers)
        )

    def _batches(self, start: int, rank: int, workers: int) -> Iterator[ImageBatch]:
        """Decoded a few updates at a time, in the order of the updates: by Ray Data tasks, or here without readers."""
        rows, share = read_snapshot(self.folder).split(TRAIN), self.config.batch_size // workers
        a_task = max(1, IMAGES_PER_TASK // share)
        firsts = range(start, self.config.updates, a_task)
        parts = (
            self._decoded(rows, firsts, share, a_task, rank, workers)
            if self.readers
            else (self._decode(rows, rank, workers, 1, update) for update in range(start, self.config.updates))
        )
        for batch in parts:
            yield ImageBatch(torch.from_numpy(batch["pixels"]), torch.from_numpy(batch["labels"]))

    def _decoded(
        self, rows: pa.Table, firsts: range, share: int, a_task: int, rank: int, workers: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches of `share` images from Ray Data tasks of `a_task` updates each."""
        silence_ray_data()
        table = ray.put(rows)

        def decode(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return self._decode(ray.get(table), rank, workers, a_task, int(batch["item"][0]))

        for some in (firsts[place : place + TASKS_PER_PLAN] for place in range(0, len(firsts), TASKS_PER_PLAN)):
            planned = ray.data.from_items(list(some), override_num_blocks=len(some))
            decoded = planned.map_batches(decode, batch_size=None, num_cpus=DATA_TASK_CPUS, concurrency=self.readers)
            yield from decoded.iter_batches(batch_size=share, prefetch_batches=4)

    def _decode(self, rows: pa.Table, rank: int, workers: int, updates: int, first: int) -> dict[str, np.ndarray]:
        """This worker's images of `updates` updates from `first` on."""
        size, wanted = self.config.batch_size, range(first, min(first + updates, self.config.updates))
        drawn = [batch_rows(update * size, size, self.order_seed, rows.num_rows) for update in wanted]
        chosen = rows.take(pa.array(np.concatenate([worker_slice(each, rank, workers) for each in drawn])))
        pixels = PixelReader(self.images, self.pixel_seed).read(chosen)
        return {"pixels": pixels, "labels": np.asarray(chosen["label"].fill_null(-1)).astype(np.int64)}

    def _held_out(self, rank: int, workers: int) -> Iterator[ImageBatch]:
        """The originals of the held-out split, read anew at each evaluation."""
        rows = read_snapshot(self.folder).originals(HELD_OUT).slice(0, self.config.held_out_samples)
        reader = PixelReader(self.images, self.pixel_seed)
        mine = rows.take(pa.array(np.arange(rank, rows.num_rows, workers)))
        for start in range(0, mine.num_rows, self.config.batch_size):
            some = mine.slice(start, self.config.batch_size)
            labels = np.asarray(some["label"].fill_null(-1)).astype(np.int64)
            yield ImageBatch(torch.from_numpy(reader.read(some)), torch.from_numpy(labels))


# --- in the workers ---------------------------------------------------------------------------------------------------


def _worker(job: FitJob, name: str, seed: int, lease: Lease, mailbox: Any) -> None:
    """One Ray Train worker: build, resume, fit."""
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(max(1, int(job.resources.cpus)))
    torch.manual_seed(seed)
    objective = job.build()
    device = _device() if job.resources.gpus else "cpu"
    observer = _Worker(job, name, mailbox, lease, rank)
    checkpoint = ray.train.get_checkpoint()
    with contextlib.ExitStack() as stack:
        resume = Path(stack.enter_context(checkpoint.as_directory())) if checkpoint else None
        if rank == 0:
            stack.enter_context(heartbeat(lease))  # an orphan whose driver died is still seen to be writing
        fit_objective(
            objective,
            config=job.config,
            seed=seed,
            data=job.data(rank, workers),
            observer=observer,
            resume=resume,
            device=device,
        )
    observer.close()


def _device() -> str:
    from ray.train.torch import get_device

    return str(get_device())


class _Worker:
    """The training loop's observer in a Ray Train worker."""

    def __init__(self, job: FitJob, name: str, mailbox: Any, lease: Lease, rank: int) -> None:
        self._job, self._name, self._mailbox, self._lease, self._rank = job, name, mailbox, lease, rank
        self._posted: Any = None

    def close(self) -> None:
        """Wait until the last note is on the mailbox: the driver looks once more when the fit has ended."""
        if self._posted is not None:
            ray.get(self._posted)

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None:
        if self._rank == 0:
            self._posted = self._mailbox.post.remote(self._name, ProgressMessage(update, metrics, images_per_second))

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None:
        if self._rank == 0:
            pictures = self._job.pictures(objective) if self._job.pictures else {}
            self._posted = self._mailbox.post.remote(self._name, EvaluationMessage(update, metrics, pictures))

    def checkpoint(self, state: FitState) -> None:
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if self._rank == 0:
                self._lease.check()
                state.save(Path(folder))
                saved = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"update": state.fit_progress.update}, checkpoint=saved)

"""The images of a snapshot as training batches. A batch depends on the number of its update alone, so that a resumed
fit continues with the same batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from components.config import TrainingSchedule
from components.images.pixels import PixelReader
from components.images.snapshot import Snapshot, label_numbers, read_snapshot
from components.images.split import HELD_OUT, TRAIN
from components.training.batches import ImageBatch
from components.training.loop import FitData
from components.training.sample_order import batch_rows, worker_slice

IMAGES_PER_TASK = 512
"""Images that one Ray Data task decodes."""


@dataclass(frozen=True, kw_only=True)
class ImageFeed:
    """Images of a snapshot for one fit; gives each worker its slice of each batch."""

    folder: str
    """URI of the snapshot, which also says how its rows become pixels."""
    schedule: TrainingSchedule
    """Updates, batch size and held-out samples of the fit."""
    order_seed: int
    """Seed of the order in which rows are drawn."""
    readers: int
    """Ray Data tasks per worker that decode at the same time; 0: the worker decodes its own images. Ignored in a
    process that is not part of a Ray cluster."""

    def __call__(self, rank: int, workers: int) -> FitData:
        """Training and held-out batches of worker `rank` of `workers`."""
        return FitData(
            batches=lambda first_update: self._batches(first_update, rank, workers),
            held_out=lambda: self._held_out(rank, workers),
        )

    def _batches(self, first_update: int, rank: int, workers: int) -> Iterator[ImageBatch]:
        """Training batches from `first_update` to the last update of the schedule."""
        snapshot = read_snapshot(self.folder)
        rows = snapshot.split(TRAIN)
        decoder = BatchDecoder(self.schedule.batch_size, self.order_seed, rank, workers, _reader(snapshot))
        updates = range(first_update, self.schedule.updates)
        if self._decodes_in_tasks():
            decoded = self._decode_in_tasks(decoder, rows, updates)
        else:
            decoded = (decoder.decode(rows, range(update, update + 1)) for update in updates)
        for batch in decoded:
            yield _image_batch(batch["pixels"], batch["labels"])

    def _decodes_in_tasks(self) -> bool:
        if self.readers == 0:
            return False
        from components.images.feed_worker import on_cluster  # imports Ray

        return on_cluster()

    def _decode_in_tasks(
        self, decoder: "BatchDecoder", rows: pa.Table, updates: range
    ) -> Iterator[dict[str, np.ndarray]]:
        """One batch per update, from Ray Data tasks that decode several updates each."""
        from components.images.feed_worker import decode_on_cluster

        images_per_batch = self.schedule.batch_size // decoder.workers
        # Whole updates per task: a batch never waits for two tasks.
        updates_per_task = max(1, IMAGES_PER_TASK // images_per_batch)
        tasks = [updates[start : start + updates_per_task] for start in range(0, len(updates), updates_per_task)]
        return decode_on_cluster(decoder.decode, rows, tasks, images_per_batch=images_per_batch, readers=self.readers)

    def _held_out(self, rank: int, workers: int) -> Iterator[ImageBatch]:
        """Originals of the held-out split, spread over the classes; read again at each evaluation, not kept."""
        snapshot = read_snapshot(self.folder)
        reader = _reader(snapshot)
        rows = snapshot.sample(HELD_OUT, self.schedule.held_out_samples)
        worker_rows = rows.take(pa.array(np.arange(rank, rows.num_rows, workers)))
        for start in range(0, worker_rows.num_rows, self.schedule.batch_size):
            batch = worker_rows.slice(start, self.schedule.batch_size)
            yield _image_batch(reader.read(batch), label_numbers(batch))


@dataclass(frozen=True)
class BatchDecoder:
    """Draws and decodes one worker's images; holds settings only, so that it can be sent to a task."""

    batch_size: int
    """Images per update, over all workers."""
    order_seed: int
    rank: int
    workers: int
    reader: PixelReader

    def decode(self, rows: pa.Table, updates: range) -> dict[str, np.ndarray]:
        """This worker's images of consecutive updates, drawn from `rows`, the whole training split.

        Gives 'pixels' uint8 (n, h, w, c) and 'labels' int64 (n,), where n = updates * batch_size / workers.
        """
        size = self.batch_size
        drawn = [batch_rows(update * size, size, self.order_seed, rows.num_rows) for update in updates]  # (size,) each
        slices = [worker_slice(batch, self.rank, self.workers) for batch in drawn]  # (size / workers,) each
        chosen = rows.take(pa.array(np.concatenate(slices)))  # n rows
        return {"pixels": self.reader.read(chosen), "labels": label_numbers(chosen)}


def _reader(snapshot: Snapshot) -> PixelReader:
    return PixelReader(snapshot.pixels, snapshot.seed)


def _image_batch(pixels: np.ndarray, labels: np.ndarray) -> ImageBatch:
    return ImageBatch(torch.from_numpy(pixels), torch.from_numpy(labels))

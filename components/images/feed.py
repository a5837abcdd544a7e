"""The images of a snapshot as training batches. A batch depends on the number of its update alone, so that a resumed
fit continues with the same batches.

An image that went bad after the snapshot was taken (it is gone, changed or damaged) is replaced by the next one of its
batch, and left out of the held-out images. A fit in which more than a few images are so fails.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from components.config import TrainingSchedule
from components.errors import StorageError, TooManyRejects
from components.images.config import ImagesExecution
from components.images.mapped_rows import MappedRows, map_rows
from components.images.pixels import PixelReader, Refusal
from components.images.snapshot import StoredSnapshot, label_numbers, open_snapshot
from components.images.split import HELD_OUT, TRAIN
from components.training.batches import ImageBatch
from components.training.loop import FitData
from components.training.sample_order import batch_rows, worker_slice

MAX_LOST = ImagesExecution.max_rejects
"""Largest fraction of a split's rows that may have gone bad, per worker."""
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
        remarks = _Remarks()
        return FitData(
            batches=lambda first_update: self._batches(first_update, rank, workers, remarks),
            held_out=lambda: self._held_out(rank, workers, remarks),
            remarks=remarks.take,
        )

    def _batches(self, first_update: int, rank: int, workers: int, remarks: "_Remarks") -> Iterator[ImageBatch]:
        """Training batches from `first_update` to the last update of the schedule."""
        snapshot = open_snapshot(self.folder)
        rows = map_rows(snapshot, TRAIN)
        decoder = BatchDecoder(self.schedule.batch_size, self.order_seed, rank, workers, _reader(snapshot), rows)
        updates = range(first_update, self.schedule.updates)
        if self._decodes_in_tasks():
            decoded = self._decode_in_tasks(decoder, updates)
        else:
            decoded = (decoder.decode(range(update, update + 1)) for update in updates)
        losses = _Losses(rows, remarks)
        for batch in decoded:
            losses.add(batch["lost"])
            yield _image_batch(batch["pixels"], batch["labels"])

    def _decodes_in_tasks(self) -> bool:
        if self.readers == 0:
            return False
        from components.images.feed_worker import on_cluster  # imports Ray

        return on_cluster()

    def _decode_in_tasks(self, decoder: "BatchDecoder", updates: range) -> Iterator[dict[str, np.ndarray]]:
        """One batch per update, from Ray Data tasks that decode several updates each."""
        from components.images.feed_worker import decode_on_cluster

        images_per_batch = self.schedule.batch_size // decoder.workers
        # Whole updates per task: a batch never waits for two tasks.
        updates_per_task = max(1, IMAGES_PER_TASK // images_per_batch)
        tasks = [updates[start : start + updates_per_task] for start in range(0, len(updates), updates_per_task)]
        return decode_on_cluster(decoder.decode, tasks, images_per_batch=images_per_batch, readers=self.readers)

    def _held_out(self, rank: int, workers: int, remarks: "_Remarks") -> Iterator[ImageBatch]:
        """Originals of the held-out split, spread over the classes; read again at each evaluation, not kept."""
        snapshot = open_snapshot(self.folder)
        reader, rows = _reader(snapshot), map_rows(snapshot, HELD_OUT)
        sample, losses = rows.sample(self.schedule.held_out_samples), _Losses(rows, remarks)
        worker_rows = sample.take(pa.array(np.arange(rank, sample.num_rows, workers)))
        for start in range(0, worker_rows.num_rows, self.schedule.batch_size):
            batch = worker_rows.slice(start, self.schedule.batch_size)
            pixels, refused = reader.read_usable(batch, changed_is_unusable=True)
            kept = np.setdiff1d(np.arange(len(pixels)), np.array(list(refused), np.int64))
            losses.add(_described(batch, refused).values())
            if len(kept):
                yield _image_batch(pixels[kept], label_numbers(batch)[kept])


@dataclass(frozen=True)
class BatchDecoder:
    """Draws and decodes one worker's images; holds settings only, so that it can be sent to a task."""

    batch_size: int
    """Images per update, over all workers."""
    order_seed: int
    rank: int
    workers: int
    reader: PixelReader
    rows: MappedRows
    """The whole training split."""

    def decode(self, updates: range) -> dict[str, np.ndarray]:
        """This worker's images of consecutive updates.

        Gives 'pixels' uint8 (n, h, w, c), 'labels' int64 (n,), and 'lost' strings (n,): where another image takes the
        place of the one that was drawn, which and why, else empty. n = updates * batch_size / workers.
        """
        size = self.batch_size
        drawn = [batch_rows(update * size, size, self.order_seed, len(self.rows)) for update in updates]  # (size,) each
        slices = [worker_slice(batch, self.rank, self.workers) for batch in drawn]  # (size / workers,) each
        chosen = self.rows.take(np.concatenate(slices))  # n rows
        pixels, refused = self.reader.read_usable(chosen, changed_is_unusable=True)
        shown = np.arange(len(pixels))  # (n,): the row whose image each row shows
        per_update = len(slices[0])
        for number in refused:
            shown[number] = _next_usable(number, per_update, refused)
        lost = _described(chosen, refused)
        described = np.array([lost.get(number, "") for number in range(len(pixels))])  # (n,)
        return {"pixels": pixels[shown], "labels": label_numbers(chosen)[shown], "lost": described}


def _next_usable(number: int, per_update: int, refused: Mapping[int, Refusal]) -> int:
    """The row after row `number` whose image is usable, in a circle through the `per_update` rows of its update."""
    first = number - number % per_update
    circle = [first + (number + step) % per_update for step in range(1, per_update)]
    usable = next((row for row in circle if row not in refused), None)
    if usable is None:
        example = refused[number].error
        raise StorageError(f"a batch must have an image that can be read, none of {per_update} can, such as: {example}")
    return usable


def _described(rows: pa.Table, refused: Mapping[int, Refusal]) -> dict[int, str]:
    """What cannot be used and why, by row number."""
    return {number: f"{rows['key'][number].as_py()}: {reason}, {error}" for number, (reason, error) in refused.items()}


class _Remarks:
    """Lines for a person, each once."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._taken = 0

    def add(self, line: str) -> None:
        if line not in self._lines:
            self._lines.append(line)

    def take(self) -> list[str]:
        """Those that were added since the last call."""
        start, self._taken = self._taken, len(self._lines)
        return self._lines[start : self._taken]


class _Losses:
    """The images of a split that went bad since the snapshot was taken, as far as this worker has met them."""

    def __init__(self, rows: MappedRows, remarks: "_Remarks") -> None:
        self._split, self._images, self._remarks = rows.split, len(rows), remarks
        self._met: set[str] = set()

    def add(self, described: Iterable[str]) -> None:
        """Raise TooManyRejects when the images that cannot be used become more than MAX_LOST of the split."""
        new = set(described) - self._met - {""}
        if new and not self._met:
            self._remarks.add(f"an image of the split {self._split} went bad and is left out: {min(new)}")
        self._met |= new
        if len(self._met) > MAX_LOST * self._images:
            raise TooManyRejects(
                f"at most {MAX_LOST:.0%} of the {self._images} rows of the split {self._split} may go bad after the "
                f"snapshot was taken, got {len(self._met)}, for example {min(self._met)}: take a new snapshot by "
                "running again"
            )


def _reader(snapshot: StoredSnapshot) -> PixelReader:
    return PixelReader(snapshot.pixels, snapshot.seed)


def _image_batch(pixels: np.ndarray, labels: np.ndarray) -> ImageBatch:
    return ImageBatch(torch.from_numpy(pixels), torch.from_numpy(labels))

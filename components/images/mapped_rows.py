"""Rows of a snapshot by their number, from this machine's disk, for workers that draw rows at random.

A snapshot may be larger than the memory of a worker. Its parts are unpacked once per machine into one Arrow file per
split (components/store/cache.py), which all processes of the machine map into memory: what is drawn is read.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts import digest_of
from components.images.snapshot import SNAPSHOT_SCHEMA, StoredSnapshot, open_snapshot
from components.images.split import SPLITS
from components.images.spread import class_rounds, proportional_order
from components.store import cache

UNPACKED_LAYOUT = 1
"""Version of the unpacked files: part of the name of their folder."""
ROWS_PER_BATCH = 1 << 14
"""Rows per record batch of an unpacked file, all but the last: row numbers say which batch a row is in."""
ROWS_SCHEMA = SNAPSHOT_SCHEMA.remove(SNAPSHOT_SCHEMA.get_field_index("split"))
"""Columns of the rows: those of a snapshot but for the split."""
OPEN_FILES = 8
"""Unpacked files that a process keeps open."""


@dataclass(frozen=True)
class MappedRows:
    """The rows of one split in the snapshot's order. Holds names only, so that it can be sent to a task: another
    machine unpacks the rows anew."""

    folder: str
    """URI of the snapshot."""
    split: str
    name: str
    """Of the unpacked files in the machine's cache."""

    def __len__(self) -> int:
        batches = self._file.num_record_batches
        return (batches - 1) * ROWS_PER_BATCH + self._file.get_batch(batches - 1).num_rows if batches else 0

    def take(self, numbers: np.ndarray) -> pa.Table:
        """The rows with these numbers, int64 (n,), in their order, with the columns of ROWS_SCHEMA."""
        batch_of, row_of = np.divmod(numbers, ROWS_PER_BATCH)  # (n,) each
        order = np.argsort(batch_of, kind="stable")  # (n,)
        taken = [
            self._file.get_batch(batch).take(pa.array(row_of[batch_of == batch]))
            for batch in np.unique(batch_of).tolist()
        ]
        place = np.empty_like(order)  # where each row came to lie
        place[order] = np.arange(len(order))
        return pa.Table.from_batches(taken, ROWS_SCHEMA).take(pa.array(place))

    def sample(self, count: int) -> pa.Table:
        """The rows of Snapshot.sample."""
        return self.take(_first_numbers(self, "sample", count))

    def gallery(self, count: int) -> pa.Table:
        """The rows of Snapshot.gallery."""
        return self.take(_first_numbers(self, "gallery", count))

    def column(self, name: str) -> np.ndarray:
        """One column of numbers, (n,); null is -1."""
        batches = (self._file.get_batch(number).column(name) for number in range(self._file.num_record_batches))
        arrays = [np.asarray(column.fill_null(-1)) for column in batches]
        return np.concatenate(arrays) if arrays else np.zeros(0, ROWS_SCHEMA.field(name).type.to_pandas_dtype())

    @property
    def _file(self) -> pa.RecordBatchFileReader:
        return _open_file(self)


def map_rows(snapshot: StoredSnapshot, split: str) -> MappedRows:
    """The rows of one split of a committed snapshot."""
    # The digest of a snapshot does not say where its images lie; its files do.
    files = sorted((file.path, file.sha256) for file in snapshot.files.values())
    return MappedRows(snapshot.folder, split, f"rows-{UNPACKED_LAYOUT}-{digest_of([snapshot.folder, files])}")


@functools.lru_cache(maxsize=OPEN_FILES)
def _open_file(rows: MappedRows) -> pa.RecordBatchFileReader:
    folder = cache.fetch(rows.name, functools.partial(_unpack, rows.folder))
    return pa.ipc.open_file(pa.memory_map(str(folder / f"{rows.split}.arrow")))


@functools.lru_cache(maxsize=OPEN_FILES)
def _first_numbers(rows: MappedRows, kind: str, count: int) -> np.ndarray:
    """Numbers int64 (m,) of the rows of a figure or a picture; kept, because each evaluation asks for them again."""
    labels, ids = rows.column("label").astype(np.int64), rows.column("id")
    if kind == "gallery":
        return class_rounds(labels, ids)[:count].copy()
    originals = np.flatnonzero(rows.column("copy") == 0)
    return originals[proportional_order(labels[originals], ids[originals])[:count]]


def _unpack(folder: str, target: Path) -> None:
    """Write one file per split into the folder `target`, one part of the snapshot in memory at a time."""
    snapshot = open_snapshot(folder)
    files = {split: _SplitFile(target / f"{split}.arrow") for split in SPLITS}
    try:
        for part in snapshot.parts:
            rows = snapshot.read_part(part)
            for split, file in files.items():
                file.add(rows.filter(pc.equal(rows["split"], split)).select(ROWS_SCHEMA.names))
    finally:
        _close(files)


def _close(files: Mapping[str, "_SplitFile"]) -> None:
    for file in files.values():
        file.close()


class _SplitFile:
    """A growing file of record batches of ROWS_PER_BATCH rows."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, ROWS_SCHEMA)
        self._pending = ROWS_SCHEMA.empty_table()  # fewer than ROWS_PER_BATCH rows

    def add(self, rows: pa.Table) -> None:
        rows = pa.concat_tables([self._pending, rows.cast(ROWS_SCHEMA)])
        whole = rows.num_rows - rows.num_rows % ROWS_PER_BATCH
        for start in range(0, whole, ROWS_PER_BATCH):
            self._write(rows.slice(start, ROWS_PER_BATCH))
        self._pending = rows.slice(whole).combine_chunks()

    def close(self) -> None:
        if self._pending.num_rows:
            self._write(self._pending)
        self._writer.close()
        self._sink.close()

    def _write(self, rows: pa.Table) -> None:
        (batch,) = rows.combine_chunks().to_batches()  # one chunk: its position says which rows it holds
        self._writer.write_batch(batch)

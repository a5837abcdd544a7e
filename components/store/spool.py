"""Rows on this machine's disk, for tables that may be larger than memory: written in order, sorted, looked up."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.store.storage_errors import as_storage_error

ROWS_PER_BATCH = 1 << 12
"""Rows read at a time from each sorted run: a sort of a billion rows merges two thousand runs."""
ROWS_PER_RUN = 1 << 19
"""Rows sorted in memory at a time."""


class ScratchFolder:
    """A folder for temporary files that is removed with this object, or when the process ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="vqvae2-rows-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Spool:
    """Tables of one schema in one local file."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_batch: int) -> None:
        self._path, self._schema, self._rows_per_batch = path, schema, rows_per_batch
        self._pending: list[pa.Table] = []
        self._pending_rows = self.rows = self.batches = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with as_storage_error(str(path)):
            self._writer = pa.ipc.new_file(str(path), schema, options=options)

    def add(self, table: pa.Table) -> None:
        """Append rows; complete batches are written at once."""
        self._pending.append(table)
        self._pending_rows += table.num_rows
        if self._pending_rows >= self._rows_per_batch:
            self._write(self._pending_rows - self._pending_rows % self._rows_per_batch)

    def close(self) -> None:
        """Write what remains; from then on the rows can be read."""
        self._write(self._pending_rows)
        self._writer.close()

    def tables(self) -> Iterator[pa.Table]:
        """All rows in their order, a batch at a time."""
        return map(self.batch, range(self.batches))

    def batch(self, number: int) -> pa.Table:
        """One batch. The file is not kept open: a merge reads more files than a process may hold."""
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as reader:
            return pa.Table.from_batches([reader.get_batch(number)])

    def _write(self, rows: int) -> None:
        joined = pa.concat_tables(self._pending) if self._pending else self._schema.empty_table()
        with as_storage_error(str(self._path)):
            for start in range(0, rows, self._rows_per_batch):
                batch = joined.slice(start, min(self._rows_per_batch, rows - start)).combine_chunks()
                self._writer.write_table(batch)
                self.batches += 1
        self.rows += rows
        self._pending = [joined.slice(rows)] if joined.num_rows > rows else []
        self._pending_rows -= rows


class ExternalSort:
    """Sorts rows by one column: runs that fit into memory are sorted, kept on disk, and merged."""

    def __init__(self, column: str, rows_per_run: int = ROWS_PER_RUN) -> None:
        self._column, self._rows_per_run = column, rows_per_run
        self._folder = ScratchFolder()
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._runs: list[_Run] = []

    def add(self, rows: pa.Table) -> None:
        """Rows of the same schema as those before, in any order."""
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        if self._pending_rows >= self._rows_per_run:
            self._write_run()

    def tables(self) -> Iterator[pa.Table]:
        """All rows by rising values of the column (equal ones in any order), some thousands at a time."""
        self._write_run()
        waiting = sorted(self._runs, key=lambda run: run.first, reverse=True)  # the next one last: pop is O(1)
        merging: list[_Run] = []
        while waiting or merging:
            if not merging:
                merging.append(waiting.pop().begin())
            bound = min(run.last_read for run in merging)
            while waiting and waiting[-1].first <= bound:
                merging.append(waiting.pop().begin())
                bound = min(bound, merging[-1].last_read)
            # Every row up to the bound is in memory: those of a run are read up to a value that is not below it, and
            # runs that wait begin above it.
            ready = [rows for run in merging if (rows := run.take_until(bound)).num_rows]
            merging = [run for run in merging if run.has_rows]
            yield ready[0] if len(ready) == 1 else _sorted(pa.concat_tables(ready), self._column)

    def _write_run(self) -> None:
        if self._pending_rows:
            rows = _sorted(pa.concat_tables(self._pending), self._column)
            path = self._folder.path / f"{len(self._runs):06}.arrow"
            self._runs.append(_Run(path, rows, self._column))
        self._pending, self._pending_rows = [], 0


class _Run:
    """One sorted run, read batch by batch."""

    def __init__(self, path: Path, rows: pa.Table, column: str) -> None:
        self._column = column
        self._spool = Spool(path, rows.schema, ROWS_PER_BATCH)
        self._spool.add(rows)
        self._spool.close()
        self.first: Any = rows[column][0].as_py()
        self.last_read: Any = None
        self._next_batch = 0
        self._rows = rows.slice(0, 0)

    def begin(self) -> "_Run":
        """Read the first batch."""
        self._next_batch = 0
        self._read()
        return self

    @property
    def has_rows(self) -> bool:
        """Whether rows are left to take."""
        return self._rows.num_rows > 0

    def take_until(self, bound: Any) -> pa.Table:
        """The rows in memory whose value is at most `bound`; reads the next batch when none remains."""
        count = pc.sum(pc.less_equal(self._rows[self._column], bound)).as_py() or 0
        taken, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        if not self._rows.num_rows:
            self._read()
        return taken

    def _read(self) -> None:
        if self._next_batch < self._spool.batches:
            self._rows = self._spool.batch(self._next_batch)
            self.last_read = self._rows[self._column][-1].as_py()
            self._next_batch += 1


class SortedLookup:
    """Looks rows up in a table that is sorted by a column of unique keys, for keys that rise from call to call."""

    def __init__(self, tables: Iterator[pa.Table], schema: pa.Schema, key: str) -> None:
        """`tables` are consecutive rows of `schema`; they are read as far as the keys have come."""
        self._tables, self._schema, self._key = tables, schema, key
        self._rows = schema.empty_table()
        self._last: str | None = None
        self.found = 0
        """Keys that were found so far."""

    def find(self, keys: pa.ChunkedArray) -> pa.Table:
        """The row of each key, in their order; a row of nulls where there is none."""
        found, where = [], []  # rows, and the numbers of the keys that they belong to
        last_key = keys[-1].as_py()
        while True:
            positions = pc.index_in(keys, value_set=self._rows[self._key])
            matched = pc.indices_nonzero(pc.is_valid(positions))
            found.append(self._rows.take(positions.take(matched)))
            where.append(matched)
            if self._last is not None and self._last > last_key:
                break  # kept for the next keys
            rows = next(self._tables, None)
            if rows is None:
                break
            self._rows = rows
            self._last = rows[self._key][-1].as_py() if rows.num_rows else self._last
        numbers = np.concatenate([np.asarray(each) for each in where])  # (f,)
        self.found += len(numbers)
        order = np.full(len(keys), -1)  # (keys,): row among those found
        order[numbers] = np.arange(len(numbers))
        return pa.concat_tables(found).take(pa.array(order, mask=order < 0))


def _sorted(rows: pa.Table, column: str) -> pa.Table:
    rows = rows.combine_chunks()
    return rows.take(pc.sort_indices(rows[column]))

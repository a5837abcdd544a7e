"""Rows on this machine's disk, for tables that may be larger than memory: written in order, sorted, looked up."""

import contextlib
import heapq
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import StorageError

ROWS_PER_BATCH = 1 << 12
"""Rows read at a time from each sorted run: a sort of a billion rows merges two thousand runs."""
ROWS_PER_RUN = 1 << 19
"""Rows sorted in memory at a time."""


class ScratchFolder:
    """A folder for temporary files that is removed with this object, or when the process ends."""

    def __init__(self) -> None:
        with _on_this_disk():
            self.path = Path(tempfile.mkdtemp(prefix="vqvae2-rows-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Spool:
    """Tables of one schema in one local file."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_batch: int) -> None:
        self._path, self._schema, self._rows_per_batch = path, schema, rows_per_batch
        self._pending: list[pa.Table] = []
        self._pending_rows = self.rows = self.batches = 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with _on_this_disk():
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
        with _on_this_disk():
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
        # By the first value that each run has not given yet: only runs whose values overlap are touched.
        heap = [(run.first, number, _Cursor(run)) for number, run in enumerate(self._runs)]
        heapq.heapify(heap)
        while heap:
            merging = [heapq.heappop(heap)]
            bound = merging[0][2].last
            while heap and heap[0][0] <= bound:
                merging.append(heapq.heappop(heap))
                bound = min(bound, merging[-1][2].last)
            # All rows up to the bound are in the batches of these runs: each batch ends at it or above, and runs in the
            # heap begin above it.
            ready = [rows for _, _, cursor in merging if (rows := cursor.take_until(bound)).num_rows]
            for _, number, cursor in merging:
                if cursor.rows.num_rows:
                    heapq.heappush(heap, (cursor.first, number, cursor))
            yield ready[0] if len(ready) == 1 else _sorted(pa.concat_tables(ready), self._column)

    def _write_run(self) -> None:
        if self._pending_rows:
            rows = _sorted(pa.concat_tables(self._pending), self._column)
            path = self._folder.path / f"{len(self._runs):06}.arrow"
            self._runs.append(_Run(path, rows, self._column))
        self._pending, self._pending_rows = [], 0


class _Run:
    """One sorted run on disk."""

    def __init__(self, path: Path, rows: pa.Table, column: str) -> None:
        self.column = column
        self.spool = Spool(path, rows.schema, ROWS_PER_BATCH)
        self.spool.add(rows)
        self.spool.close()
        self.first: Any = rows[column][0].as_py()


class _Cursor:
    """Reads a run batch by batch; the first batch when it is first asked for."""

    def __init__(self, run: _Run) -> None:
        self._run, self._next_batch = run, 0
        self._rows: pa.Table | None = None

    @property
    def rows(self) -> pa.Table:
        """The rows of the present batch that were not taken; none at the end of the run."""
        spool = self._run.spool
        while (self._rows is None or not self._rows.num_rows) and self._next_batch < spool.batches:
            self._rows = spool.batch(self._next_batch)
            self._next_batch += 1
        assert self._rows is not None, "a run has at least one row"
        return self._rows

    @property
    def first(self) -> Any:
        """First value that was not taken."""
        return self.rows[self._run.column][0].as_py()

    @property
    def last(self) -> Any:
        """Last value of the present batch."""
        return self.rows[self._run.column][-1].as_py()

    def take_until(self, bound: Any) -> pa.Table:
        """The rows of the present batch whose value is at most `bound`."""
        rows = self.rows
        count = pc.sum(pc.less_equal(rows[self._run.column], bound)).as_py()
        self._rows = rows.slice(count)
        return rows.slice(0, count)


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


@contextlib.contextmanager
def _on_this_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"rows must fit into the folder for temporary files, cannot write there: {error}. A listing needs some "
            "hundred bytes per image: set TMPDIR to a folder with room"
        ) from error


def _sorted(rows: pa.Table, column: str) -> pa.Table:
    rows = rows.combine_chunks()
    return rows.take(pc.sort_indices(rows[column]))

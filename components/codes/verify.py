"""Reads a whole code dataset back and reports every fault.

Shards and the snapshot are sorted by key and read side by side: memory holds the shards that are being read, the
identities of those that overlap the same rows of the snapshot, and the keys of the rejects.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.codes.dataset import CodeDataset, read_dataset
from components.codes.schema import CodeSchema
from components.codes.writer import Shard, code_column_paths, dictionary_encoded_columns, row_versions
from components.errors import StorageError
from components.images.rejects import REJECTS_FILE
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.store import commits, objects, parquet
from components.store.read_ahead import map_ahead

CONCURRENT_READS = 4
"""Shards that are read at the same time."""
ROWS_PER_COMPARISON = 1 << 16
"""Rows of the snapshot that are compared at a time."""
DIGEST_DIGITS = 12
"""Hex digits of a digest that a message shows."""


Report = Callable[[int, int], Any]


class DatasetFault(NamedTuple):
    """One fault of a dataset."""

    path: str
    """File that must be made again; empty when the fault is in no single file."""
    what: str
    """The fault, as the rest of a sentence that begins with the path."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


class _CheckedShard(NamedTuple):
    """The rows of one shard, none where it cannot be read, and its faults."""

    shard: Shard
    ids: np.ndarray
    """int64 (m,)"""
    versions: np.ndarray
    """int64 (m,)"""
    listed: np.ndarray
    """bool (m,): rows that the snapshot lists; set when it is compared."""
    faults: list[DatasetFault]


def _unreadable(shard: Shard, faults: list[DatasetFault]) -> _CheckedShard:
    return _CheckedShard(shard, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, bool), faults)


def verify_dataset(folder: str, report: Report = lambda read, total: None) -> list[DatasetFault]:
    """All faults of the dataset in `folder`, as `check_dataset`; raises FileNotFoundError when nothing is committed."""
    return check_dataset(read_dataset(folder), report)


def check_dataset(dataset: CodeDataset, report: Report = lambda read, total: None) -> list[DatasetFault]:
    """All faults of the files that one manifest lists, whatever is committed meanwhile; empty when there are none.

    `report` is called with (shards read, shards in all).
    """
    shard_paths = {shard.path for shard in dataset.shards}
    other_files = [file for file in dataset.files.values() if file.path not in shard_paths]
    faults = [fault for file in other_files for fault in _read_file(dataset.folder, file)[1]]
    snapshot, snapshot_faults = _open_snapshot(dataset)
    comparison = _Comparison(_rejected_keys(dataset) if not faults else [])
    checked = _checked_shards(dataset, faults, report)
    if snapshot is not None:
        comparison.run(snapshot, checked)
    for _ in checked:  # those that no snapshot was compared with
        pass
    faults += comparison.repeats
    # Rows of a damaged file would be reported as missing from the snapshot too: they are counted only when nothing else
    # is wrong.
    if snapshot is not None and not faults:
        faults += comparison.row_faults(snapshot.rows)
    return [*faults, *snapshot_faults]


# --- files and shards -------------------------------------------------------------------------------------------------


def _read_file(folder: str, file: commits.FileEntry) -> tuple[bytes, list[DatasetFault]]:
    try:
        data = objects.read_bytes(objects.join(folder, file.path))
    except FileNotFoundError:
        return b"", [DatasetFault(file.path, "is missing")]
    if len(data) != file.size:
        return data, [DatasetFault(file.path, f"has {len(data)} bytes, the manifest says {file.size}")]
    sha256 = commits.file_entry(file.path, data).sha256
    if sha256 != file.sha256:
        listed = file.sha256[:DIGEST_DIGITS]
        return data, [DatasetFault(file.path, f"has SHA-256 {sha256[:DIGEST_DIGITS]}, the manifest says {listed}")]
    return data, []


def _checked_shards(dataset: CodeDataset, faults: list[DatasetFault], report: Report) -> Iterator[_CheckedShard]:
    """All shards by rising first key; their faults are added to `faults`."""
    checked = map_ahead(
        lambda shard: _check_shard(dataset.folder, dataset.schema, shard), dataset.shards, CONCURRENT_READS
    )
    for read, each in enumerate(checked, start=1):
        faults += each.faults
        report(read, len(dataset.shards))
        yield each


def _check_shard(folder: str, schema: CodeSchema, shard: Shard) -> _CheckedShard:
    data, faults = _read_file(folder, shard)
    if faults:
        return _unreadable(shard, faults)
    try:
        table = parquet.from_bytes(data)
    except (pa.ArrowException, OSError) as error:
        return _unreadable(shard, [DatasetFault(shard.path, f"cannot be read: {error}")])
    if not table.schema.equals(schema.arrow(), check_metadata=True):
        fault = DatasetFault(shard.path, "has other columns or metadata than the manifest says")
        return _unreadable(shard, [fault])
    messages = [*_row_faults(table, shard), *_code_faults(table, schema), *_footer_faults(data, schema)]
    faults = [DatasetFault(shard.path, message) for message in messages]
    ids, versions = np.asarray(table["id"]), np.asarray(table["version"])  # (m,) each
    return _CheckedShard(shard, ids, versions, np.zeros(len(ids), bool), faults)


def _row_faults(table: pa.Table, shard: Shard) -> Iterator[str]:
    if table.num_rows != shard.rows:
        yield f"has {table.num_rows} rows, the manifest says {shard.rows}"
    keys = table["key"].to_pylist()
    if keys != sorted(keys) or [keys[0], keys[-1]] != [shard.first_key, shard.last_key]:
        yield f"must hold keys in order from {shard.first_key!r} to {shard.last_key!r}"
    _, first_rows = np.unique(np.asarray(table["id"]), return_index=True)
    repeats = np.setdiff1d(np.arange(table.num_rows), first_rows)  # (r,): rows whose id an earlier row has
    if len(repeats):
        yield f"repeats {len(repeats)} ids, for example {table['id'][repeats[0]]}"
    if not np.isfinite(np.asarray(table["error"])).all():
        yield "has NaN or infinite errors"


def _code_faults(table: pa.Table, schema: CodeSchema) -> Iterator[str]:
    for level in schema.levels:
        codes = np.asarray(table[level.name].combine_chunks().flatten())  # (n * h * w,)
        # A null map has no codes: flatten() leaves it out.
        if len(codes) != table.num_rows * level.height * level.width:
            yield f"has {len(codes)} codes of level '{level.name}', {table.num_rows} maps have more"
        elif codes.size and int(codes.max()) >= level.codebook_size:
            yield f"has code {int(codes.max())} in level '{level.name}', codes lie in 0..{level.codebook_size - 1}"


def _footer_faults(data: bytes, schema: CodeSchema) -> Iterator[str]:
    plain = sorted(set(code_column_paths(schema)) - set(dictionary_encoded_columns(data)))
    if plain:
        yield f"must have its codes dictionary-encoded, {plain} are not"
    footer = pq.ParquetFile(pa.BufferReader(data)).metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    codecs = {group.column(number).compression for group in groups for number in range(footer.num_columns)}
    if codecs != {"ZSTD"}:
        yield f"must be compressed by zstd, got {sorted(codecs)}"


# --- against the snapshot ---------------------------------------------------------------------------------------------


def _open_snapshot(dataset: CodeDataset) -> tuple[StoredSnapshot | None, list[DatasetFault]]:
    """The snapshot of a dataset, or why it cannot be compared with."""
    uri = dataset.facts.snapshot_uri
    try:
        snapshot = open_snapshot(uri)
    except (FileNotFoundError, StorageError) as error:
        return None, [DatasetFault("", f"its snapshot {uri} cannot be read: {error}")]
    if snapshot.digest != dataset.facts.snapshot:
        present, expected = snapshot.digest[:DIGEST_DIGITS], dataset.facts.snapshot[:DIGEST_DIGITS]
        return None, [DatasetFault("", f"its snapshot {uri} is now {present}, the dataset is of {expected}")]
    return snapshot, []


def _rejected_keys(dataset: CodeDataset) -> list[str]:
    return parquet.from_bytes(objects.read_bytes(dataset.uri_of(REJECTS_FILE)))["key"].to_pylist()


class _Comparison:
    """Every row of the snapshot must be in one shard, in the version listed, or among the rejects, and no other row."""

    def __init__(self, rejected_keys: list[str]) -> None:
        self._rejects, self._rejected_keys = len(rejected_keys), pa.array(rejected_keys, pa.string())
        self._open: list[_CheckedShard] = []
        self._present = self._missing = self._stale = self._unlisted = 0  # rows
        self._missing_key = ""
        self.repeats: list[DatasetFault] = []
        """One fault per shard and stretch of rows that a shard before it has too: it must be made again."""

    def run(self, snapshot: StoredSnapshot, checked: Iterator[_CheckedShard]) -> None:
        """Compare all rows with all shards, which come by rising first key."""
        following = next(checked, None)
        for rows in snapshot.waves(ROWS_PER_COMPARISON):
            last_key = rows["key"][-1].as_py()
            while following is not None and following.shard.first_key <= last_key:
                self._open.append(following)
                following = next(checked, None)
            self._compare(rows)
            # The next rows may begin with copies of the last image, whose key is the same.
            self._unlisted += sum(int((~each.listed).sum()) for each in self._open if each.shard.last_key < last_key)
            self._open = [each for each in self._open if each.shard.last_key >= last_key]
        self._unlisted += sum(int((~each.listed).sum()) for each in self._open)
        while following is not None:
            self._unlisted += len(following.ids)
            following = next(checked, None)

    def _compare(self, rows: pa.Table) -> None:
        """Shapes: n rows of the snapshot; m rows of one shard; k rows in both."""
        ids, versions = np.asarray(rows["id"]), row_versions(rows)  # (n,) each
        present, by_id = np.zeros(len(ids), bool), np.argsort(ids)  # (n,) each
        for each in self._open:
            ranks = np.minimum(np.searchsorted(ids, each.ids, sorter=by_id), len(ids) - 1)  # (m,)
            stored = np.flatnonzero(ids[by_id[ranks]] == each.ids)  # (k,): rows of the shard
            listed = by_id[ranks[stored]]  # (k,): the same rows in the snapshot
            each.listed[stored] = True
            repeated = ids[listed[present[listed]]]
            if len(repeated):
                message = f"repeats {len(repeated)} ids, for example {int(repeated[0])}"
                self.repeats.append(DatasetFault(each.shard.path, message))
            present[listed] = True
            self._stale += int((versions[listed] != each.versions[stored]).sum())
        missing_keys = rows["key"].filter(pa.array(~present))
        missing_keys = missing_keys.filter(pc.invert(pc.is_in(missing_keys, self._rejected_keys)))
        self._present += int(present.sum())
        self._missing += len(missing_keys)
        if len(missing_keys):
            self._missing_key = self._missing_key or missing_keys[0].as_py()

    def row_faults(self, snapshot_rows: int) -> Iterator[DatasetFault]:
        """What is wrong with the rows of a dataset whose files are whole."""
        if self._missing:
            message = f"{self._missing} images of the snapshot are neither in a shard nor rejected"
            yield DatasetFault("", f"{message}, for example {self._missing_key!r}")
        if self._stale:
            message = f"{self._stale} rows were encoded from another version of their image than the snapshot lists"
            yield DatasetFault("", message)
        if self._unlisted:
            yield DatasetFault("", f"{self._unlisted} rows are in no snapshot")
        if self._present + self._rejects != snapshot_rows and not self._missing:
            absent = snapshot_rows - self._present
            yield DatasetFault(REJECTS_FILE, f"has {self._rejects} rows, {absent} images are in no shard")

"""Reading a whole code dataset back, and saying precisely what is wrong with it.

Memory holds 16 bytes a row (id and version), beside the few shards that are being read.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.codes.dataset import CodeDataset, read_dataset
from components.codes.schema import CodeSchema
from components.codes.writer import Shard, code_column_paths, dictionary_encoded_columns, row_versions
from components.errors import StorageError
from components.images.rejects import REJECTS_FILE
from components.images.snapshot import open_snapshot
from components.store import commits, objects, parquet

CONCURRENT_READS = 4
"""Shards that are read at the same time."""
ROWS_PER_COMPARISON = 1 << 16
"""Rows of the snapshot that are compared at a time."""


class DatasetFault(NamedTuple):
    """One thing that is wrong."""

    path: str
    """File that is to be made again; empty: none in particular."""
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


class _Read(NamedTuple):
    """What one shard holds."""

    shard: Shard
    ids: np.ndarray
    versions: np.ndarray
    faults: list[DatasetFault]


def verify_dataset(folder: str, tell: Callable[[int, int], Any] = lambda done, total: None) -> list[DatasetFault]:
    """Everything wrong with the dataset in `folder`; empty: it is whole. `tell` gets (shards read, shards in all).

    Raises FileNotFoundError when nothing is committed there.
    """
    dataset = read_dataset(folder)
    others = [file for file in dataset.files.values() if file.path not in {shard.path for shard in dataset.shards}]
    faults = [fault for file in others for fault in _content(folder, file)[1]]
    read: list[_Read] = []
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        for one in pool.map(lambda shard: _shard(folder, dataset.schema, shard), dataset.shards):
            read.append(one)
            faults += one.faults
            tell(len(read), len(dataset.shards))
    faults += _repeated(read)
    faults += _against_snapshot(dataset, read, may_count=not faults)
    return faults


def _content(folder: str, file: commits.FileEntry) -> tuple[bytes, list[DatasetFault]]:
    try:
        data = objects.read_bytes(objects.join(folder, file.path))
    except FileNotFoundError:
        return b"", [DatasetFault(file.path, "is missing")]
    if len(data) != file.size:
        return data, [DatasetFault(file.path, f"has {len(data)} bytes, the manifest says {file.size}")]
    found = commits.file_entry(file.path, data).sha256
    if found != file.sha256:
        return data, [DatasetFault(file.path, f"has SHA-256 {found[:12]}, the manifest says {file.sha256[:12]}")]
    return data, []


def _shard(folder: str, schema: CodeSchema, shard: Shard) -> _Read:
    data, faults = _content(folder, shard)
    nothing = np.zeros(0, np.int64)
    if faults:
        return _Read(shard, nothing, nothing, faults)
    try:
        table = parquet.from_bytes(data)
    except (pa.ArrowException, OSError) as error:
        return _Read(shard, nothing, nothing, [DatasetFault(shard.path, f"cannot be read: {error}")])
    if not table.schema.equals(schema.arrow(), check_metadata=True):
        return _Read(
            shard, nothing, nothing, [DatasetFault(shard.path, "has other columns or metadata than the manifest says")]
        )
    what = [*_rows(table, shard), *_codes(table, schema), *_footer(data, schema)]
    return _Read(
        shard, np.asarray(table["id"]), np.asarray(table["version"]), [DatasetFault(shard.path, one) for one in what]
    )


def _rows(table: pa.Table, shard: Shard) -> Iterator[str]:
    if table.num_rows != shard.rows:
        yield f"has {table.num_rows} rows, the manifest says {shard.rows}"
    keys = table["key"].to_pylist()
    if keys != sorted(keys) or [keys[0], keys[-1]] != [shard.first_key, shard.last_key]:
        yield f"must hold keys in order from {shard.first_key!r} to {shard.last_key!r}"
    if not np.isfinite(np.asarray(table["error"])).all():
        yield "has errors that are no numbers"


def _codes(table: pa.Table, schema: CodeSchema) -> Iterator[str]:
    for level in schema.levels:
        codes = np.asarray(table[level.name].combine_chunks().flatten())
        if len(codes) != table.num_rows * level.height * level.width:
            yield f"has {len(codes)} codes of level '{level.name}', {table.num_rows} maps have more"
        elif codes.size and int(codes.max()) >= level.codebook_size:
            yield f"has code {int(codes.max())} in level '{level.name}', codes lie in 0..{level.codebook_size - 1}"


def _footer(data: bytes, schema: CodeSchema) -> Iterator[str]:
    plain = sorted(set(code_column_paths(schema)) - set(dictionary_encoded_columns(data)))
    if plain:
        yield f"must have its codes dictionary-encoded, {plain} are not"
    footer = pq.ParquetFile(pa.BufferReader(data)).metadata
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    codecs = {group.column(number).compression for group in groups for number in range(footer.num_columns)}
    if codecs != {"ZSTD"}:
        yield f"must be compressed by zstd, got {sorted(codecs)}"


def _repeated(read: list[_Read]) -> Iterator[DatasetFault]:
    """Ids that occur again: the later shard is the one to make again."""
    ids = np.concatenate([one.ids for one in read]) if read else np.zeros(0, np.int64)
    owner = np.repeat(np.arange(len(read)), [len(one.ids) for one in read])
    order = np.argsort(ids, kind="stable")
    again = order[1:][ids[order][1:] == ids[order][:-1]]
    for number in np.unique(owner[again]):
        some = ids[again[owner[again] == number]]
        yield DatasetFault(read[number].shard.path, f"repeats {len(some)} ids, for example {int(some[0])}")


def _against_snapshot(dataset: CodeDataset, read: list[_Read], may_count: bool) -> Iterator[DatasetFault]:
    """Every row of the snapshot is in a shard, in the version listed, or among the rejects; no other is."""
    uri = dataset.facts["snapshot_uri"]
    try:
        snapshot = open_snapshot(uri)
    except (FileNotFoundError, StorageError) as error:
        yield DatasetFault("", f"its snapshot {uri} cannot be read: {error}")
        return
    if snapshot.digest != dataset.facts["snapshot"]:
        yield DatasetFault(
            "", f"its snapshot {uri} is now {snapshot.digest[:12]}, the dataset is of {dataset.facts['snapshot'][:12]}"
        )
        return
    if not may_count:
        return  # what is damaged is missing too, and would be told twice
    held = np.concatenate([np.stack([one.ids, one.versions], 1) for one in read])
    held = held[np.argsort(held[:, 0])]
    rejected = parquet.from_bytes(objects.read_bytes(objects.join(dataset.folder, REJECTS_FILE)))["key"].to_pylist()
    left_out = set(rejected)
    found = missing = stale = 0
    example = ""
    for rows in snapshot.waves(ROWS_PER_COMPARISON):
        ids = np.asarray(rows["id"])
        at = np.minimum(np.searchsorted(held[:, 0], ids), max(len(held) - 1, 0))
        there = held[at, 0] == ids if len(held) else np.zeros(len(ids), bool)
        fresh = there & (held[at, 1] == row_versions(rows)) if len(held) else there
        keys = rows["key"].to_pylist()
        lost = [keys[place] for place in np.flatnonzero(~there) if keys[place] not in left_out]
        found, missing, stale = found + int(there.sum()), missing + len(lost), stale + int((there & ~fresh).sum())
        example = example or (lost[0] if lost else "")
    if missing:
        yield DatasetFault(
            "", f"{missing} images of the snapshot are neither in a shard nor rejected, for example {example!r}"
        )
    if stale:
        yield DatasetFault("", f"{stale} rows were encoded from another version of their image than the snapshot lists")
    if found < len(held):
        yield DatasetFault("", f"{len(held) - found} rows are in no snapshot")
    if found + len(rejected) != snapshot.rows and not missing:
        yield DatasetFault(REJECTS_FILE, f"has {len(rejected)} rows, {snapshot.rows - found} images are in no shard")

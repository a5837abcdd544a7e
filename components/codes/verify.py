"""Reads a whole code dataset back and reports every fault.

Memory holds 16 bytes per row (id and version), plus the shards that are being read.
"""

from collections.abc import Callable, Iterator, Sequence
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
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.store import commits, objects, parquet

CONCURRENT_READS = 4
"""Shards that are read at the same time."""
ROWS_PER_COMPARISON = 1 << 16
"""Rows of the snapshot that are compared at a time."""
DIGEST_DIGITS = 12
"""Hex digits of a digest that a message shows."""


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
    """int64 (n,)"""
    versions: np.ndarray
    """int64 (n,)"""
    faults: list[DatasetFault]


def verify_dataset(folder: str, report: Callable[[int, int], Any] = lambda read, total: None) -> list[DatasetFault]:
    """All faults of the dataset in `folder`; empty when it is whole.

    `report` is called with (shards read, shards in all). Raises FileNotFoundError when nothing is committed there.
    """
    dataset = read_dataset(folder)
    shard_paths = {shard.path for shard in dataset.shards}
    other_files = [file for file in dataset.files.values() if file.path not in shard_paths]
    faults = [fault for file in other_files for fault in _read_file(folder, file)[1]]
    checked: list[_CheckedShard] = []
    with ThreadPoolExecutor(CONCURRENT_READS) as pool:
        for each in pool.map(lambda shard: _check_shard(folder, dataset.schema, shard), dataset.shards):
            checked.append(each)
            faults += each.faults
            report(len(checked), len(dataset.shards))
    faults += _repeated_ids(checked)
    # Rows of a damaged file would be reported as missing from the snapshot too: they are counted only when nothing else
    # is wrong.
    faults += _snapshot_faults(dataset, checked, count_rows=not faults)
    return faults


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


def _check_shard(folder: str, schema: CodeSchema, shard: Shard) -> _CheckedShard:
    data, faults = _read_file(folder, shard)
    no_rows = np.zeros(0, np.int64)
    if faults:
        return _CheckedShard(shard, no_rows, no_rows, faults)
    try:
        table = parquet.from_bytes(data)
    except (pa.ArrowException, OSError) as error:
        return _CheckedShard(shard, no_rows, no_rows, [DatasetFault(shard.path, f"cannot be read: {error}")])
    if not table.schema.equals(schema.arrow(), check_metadata=True):
        fault = DatasetFault(shard.path, "has other columns or metadata than the manifest says")
        return _CheckedShard(shard, no_rows, no_rows, [fault])
    messages = [*_row_faults(table, shard), *_code_faults(table, schema), *_footer_faults(data, schema)]
    faults = [DatasetFault(shard.path, message) for message in messages]
    return _CheckedShard(shard, np.asarray(table["id"]), np.asarray(table["version"]), faults)


def _row_faults(table: pa.Table, shard: Shard) -> Iterator[str]:
    if table.num_rows != shard.rows:
        yield f"has {table.num_rows} rows, the manifest says {shard.rows}"
    keys = table["key"].to_pylist()
    if keys != sorted(keys) or [keys[0], keys[-1]] != [shard.first_key, shard.last_key]:
        yield f"must hold keys in order from {shard.first_key!r} to {shard.last_key!r}"
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


def _repeated_ids(checked: Sequence[_CheckedShard]) -> Iterator[DatasetFault]:
    """One fault per shard that holds ids of a shard before it, or one id twice: that shard must be made again."""
    if not checked:
        return
    ids = np.concatenate([each.ids for each in checked])  # (m,): all rows, shard after shard
    shard_numbers = np.repeat(np.arange(len(checked)), [len(each.ids) for each in checked])  # (m,)
    by_id = np.argsort(ids, kind="stable")  # (m,): equal ids keep the order of their shards
    repeats = by_id[1:][ids[by_id][1:] == ids[by_id][:-1]]  # (r,): rows whose id an earlier row has
    for number in np.unique(shard_numbers[repeats]):
        repeated = ids[repeats[shard_numbers[repeats] == number]]
        message = f"repeats {len(repeated)} ids, for example {int(repeated[0])}"
        yield DatasetFault(checked[number].shard.path, message)


# --- against the snapshot ---------------------------------------------------------------------------------------------


def _snapshot_faults(
    dataset: CodeDataset, checked: Sequence[_CheckedShard], count_rows: bool
) -> Iterator[DatasetFault]:
    """Every row of the snapshot must be in a shard, in the version listed, or among the rejects, and no other row."""
    uri = dataset.facts.snapshot_uri
    try:
        snapshot = open_snapshot(uri)
    except (FileNotFoundError, StorageError) as error:
        yield DatasetFault("", f"its snapshot {uri} cannot be read: {error}")
        return
    if snapshot.digest != dataset.facts.snapshot:
        present, expected = snapshot.digest[:DIGEST_DIGITS], dataset.facts.snapshot[:DIGEST_DIGITS]
        yield DatasetFault("", f"its snapshot {uri} is now {present}, the dataset is of {expected}")
        return
    if count_rows:
        rejects = objects.read_bytes(dataset.uri_of(REJECTS_FILE))
        yield from _row_count_faults(snapshot, checked, parquet.from_bytes(rejects)["key"].to_pylist())


def _row_count_faults(
    snapshot: StoredSnapshot, checked: Sequence[_CheckedShard], rejected_keys: list[str]
) -> Iterator[DatasetFault]:
    no_rows = np.zeros((0, 2), np.int64)  # concatenate needs one array, even if every image is a reject
    stored = np.concatenate([no_rows, *(np.stack([each.ids, each.versions], 1) for each in checked)])  # (m, 2)
    stored = stored[np.argsort(stored[:, 0])]  # by rising id, which no two rows share
    rejected = set(rejected_keys)
    present_rows = missing_rows = stale_rows = 0
    example_key = ""
    for rows in snapshot.waves(ROWS_PER_COMPARISON):
        ids = np.asarray(rows["id"])  # (n,)
        present, stale = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
        if len(stored):
            ranks = np.minimum(np.searchsorted(stored[:, 0], ids), len(stored) - 1)  # (n,): where each id would be
            present = stored[ranks, 0] == ids  # (n,)
            stale = present & (stored[ranks, 1] != row_versions(rows))  # (n,)
        keys = rows["key"].to_pylist()
        missing_keys = [keys[number] for number in np.flatnonzero(~present) if keys[number] not in rejected]
        present_rows += int(present.sum())
        missing_rows += len(missing_keys)
        stale_rows += int(stale.sum())
        example_key = example_key or (missing_keys[0] if missing_keys else "")
    if missing_rows:
        message = f"{missing_rows} images of the snapshot are neither in a shard nor rejected"
        yield DatasetFault("", f"{message}, for example {example_key!r}")
    if stale_rows:
        message = f"{stale_rows} rows were encoded from another version of their image than the snapshot lists"
        yield DatasetFault("", message)
    if present_rows < len(stored):
        yield DatasetFault("", f"{len(stored) - present_rows} rows are in no snapshot")
    if present_rows + len(rejected_keys) != snapshot.rows and not missing_rows:
        absent = snapshot.rows - present_rows
        yield DatasetFault(REJECTS_FILE, f"has {len(rejected_keys)} rows, {absent} images are in no shard")

"""From codes to committed shards.

A shard is a fixed range of the snapshot's rows, so its name says which rows it holds: a resumed job encodes only the
shards that are missing, and a task that is tried twice writes the same bytes to the same name. Each row is there
exactly once by construction, and nothing has to be counted or merged.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import parquet, storage
from components.codes.schema import ERROR, FIXED, CodeLevel, CodeSchema
from components.config import require


@dataclass(frozen=True)
class ShardRange:
    """Rows start..stop-1 of the snapshot, the content of shard `index`."""

    index: int
    start: int
    stop: int


class Shard(NamedTuple):
    """One written shard, as the manifest lists it."""

    file: storage.FileEntry
    rows: int
    splits: dict[str, int]
    """Rows by split."""


def shard_name(index: int) -> str:
    """File of shard `index`, relative to the dataset's folder."""
    return f"part-{index:08}.parquet"


def shard_ranges(rows: int, rows_a_shard: int) -> list[ShardRange]:
    """All shards of a snapshot with `rows` rows; only the last may hold fewer than `rows_a_shard`."""
    require(rows >= 1, f"a code dataset must have at least one row, got {rows}")
    require(rows_a_shard >= 1, f"rows_a_shard must be at least 1, got {rows_a_shard}")
    starts = range(0, rows, rows_a_shard)
    return [ShardRange(index, start, min(start + rows_a_shard, rows)) for index, start in enumerate(starts)]


def build_shard(schema: CodeSchema, rows: pa.Table, maps: Sequence[np.ndarray], errors: np.ndarray) -> pa.Table:
    """Table of a shard from rows of the snapshot, int64 code maps (n, h, w) a level, top first, and errors (n,).

    Raises ValueError when codes do not fit the levels: a tokenizer that differs from the schema's.
    """
    require(len(maps) == len(schema.levels), f"there must be {len(schema.levels)} code maps, got {len(maps)}")
    require(errors.shape == (rows.num_rows,), f"errors must have shape ({rows.num_rows},), got {errors.shape}")
    require(
        bool(np.isfinite(errors).all()),
        "reconstruction errors must be finite, got NaN or infinity: did the tokenizer's fit diverge?",
    )
    arrow = schema.arrow()
    fixed = [rows[field.name].combine_chunks().cast(field.type) for field in FIXED]
    pairs = zip(schema.levels, maps, strict=True)
    codes = [_column(level, values, rows.num_rows, arrow.field(level.name).type) for level, values in pairs]
    return pa.table([*fixed, *codes, pa.array(errors.astype(np.float32), ERROR.type)], schema=arrow)


def _column(level: CodeLevel, codes: np.ndarray, rows: int, kind: pa.DataType) -> pa.Array:
    shape = (rows, level.height, level.width)
    require(
        codes.shape == shape,
        f"code map '{level.name}' must have shape {shape}, got {codes.shape}: was it made by "
        "another tokenizer or for another image size?",
    )
    require(codes.dtype == np.int64, f"code map '{level.name}' must be int64, got {codes.dtype}")
    if codes.size:
        low, high = int(codes.min()), int(codes.max())
        require(
            low >= 0 and high < level.codebook_size,
            f"codes of level '{level.name}' must lie in "
            f"0..{level.codebook_size - 1}, got {low}..{high}: was the map made by another tokenizer?",
        )
    flat = pa.array(codes.astype(level.type.to_pandas_dtype()).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, type=kind)


def encode_shard(table: pa.Table) -> bytes:
    """`table` as Parquet; equal tables give equal bytes.

    Parquet keeps 16-bit integers as 32 bits: the dictionary encoding is what packs a code into log2(K) bits.
    """
    schema = CodeSchema.from_arrow(table.schema)
    paths = [f"{level.name}.list.element" for level in schema.levels]
    largest = max(level.codebook_size for level in schema.levels)
    data = parquet.to_bytes(
        table,
        use_dictionary=[*paths, "label", "split", "copy"],
        dictionary_pagesize_limit=8 * largest + (1 << 20),  # above it the writer would fall back to 32 bits a code
        write_statistics=["id", "label", "split", "copy", "error"],
        row_group_size=max(table.num_rows, 1),
    )
    assert set(paths) <= set(dictionary_encoded(data)), "code columns must be dictionary-encoded"
    return data


def dictionary_encoded(data: bytes) -> list[str]:
    """Column paths of a Parquet file that are dictionary-encoded in every row group, by its footer."""
    footer = pq.ParquetFile(pa.BufferReader(data)).metadata
    counted: Counter[str] = Counter()
    for group in range(footer.num_row_groups):
        columns = [footer.row_group(group).column(number) for number in range(footer.num_columns)]
        counted.update(column.path_in_schema for column in columns if "RLE_DICTIONARY" in column.encodings)
    return [path for path, groups in counted.items() if groups == footer.num_row_groups]


def write_shard(folder: str, index: int, table: pa.Table) -> Shard:
    """Write shard `index` whole or not at all."""
    data = encode_shard(table)
    storage.write_bytes(storage.join(folder, shard_name(index)), data)
    return _shard(index, data, table)


def find_shards(folder: str, schema: CodeSchema, ids: np.ndarray, rows_a_shard: int) -> dict[int, Shard]:
    """Shards that an earlier job left whole in `folder`, by number; `ids` (n,) are the ids of all the snapshot's rows.

    A shard that is cut, of another schema, or of other rows counts as missing: it will be written anew.
    """
    present = storage.sizes(folder)
    found = {}
    for one in shard_ranges(len(ids), rows_a_shard):
        if shard_name(one.index) not in present:
            continue
        data = storage.read_bytes(storage.join(folder, shard_name(one.index)))
        try:
            table = parquet.from_bytes(data)
        except (pa.ArrowException, OSError):
            continue
        same = table.schema.equals(schema.arrow(), check_metadata=True)
        if same and np.array_equal(np.asarray(table["id"]), ids[one.start : one.stop]):
            found[one.index] = _shard(one.index, data, table)
    return found


def _shard(index: int, data: bytes, table: pa.Table) -> Shard:
    splits = Counter(table["split"].to_pylist())
    return Shard(storage.entry(shard_name(index), data), table.num_rows, dict(sorted(splits.items())))


def commit_codes(folder: str, schema: CodeSchema, shards: Iterable[Shard], *, rows: int) -> str:
    """Remove shards that no longer belong, then write the manifest: from now on the dataset exists. Returns its digest.

    Raises ValueError unless the shards hold all `rows` rows of the snapshot.
    """
    listed = sorted(shards, key=lambda shard: shard.file.path)
    paths = {shard.file.path for shard in listed}
    held = sum(shard.rows for shard in listed)
    require(len(paths) == len(listed), f"each shard must be committed once, got {len(listed)} with {len(paths)} names")
    require(held == rows, f"the shards must hold all {rows} rows of the snapshot, got {held}: encode the missing ones")
    for path in storage.sizes(folder):
        if path.startswith("part-") and path.endswith(".parquet") and path not in paths:
            storage.delete(storage.join(folder, path))
    splits: Counter[str] = Counter()
    for shard in listed:
        splits.update(shard.splits)
    facts = {
        "rows": rows,
        "shards": len(listed),
        "splits": dict(splits),
        "levels": [asdict(level) for level in schema.levels],
        "tokenizer": schema.tokenizer_digest,
        "snapshot": schema.snapshot_digest,
    }
    return storage.commit(folder, [shard.file for shard in listed], facts)

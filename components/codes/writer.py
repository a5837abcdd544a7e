"""From codes to shards: one Parquet file for a list of rows, named by what is asked of it.

A shard's name is a hash of the rows that it is made for, so a task that is tried twice writes the same bytes to the
same name, and a job that is taken up again recognises what is there.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.codes.schema import ERROR_COLUMN, SNAPSHOT_COLUMNS, VERSION_COLUMN, CodeLevel, CodeSchema
from components.config import require
from components.images.split import TRAIN
from components.store import commits, objects, parquet


@dataclass(frozen=True)
class Shard(commits.FileEntry):
    """One written shard, as the manifest lists it."""

    rows: int
    splits: dict[str, int]
    """Rows by split."""
    first_key: str
    last_key: str
    """Keys of its first and last row; between them rows lie by rising key."""
    used: dict[str, str]
    """Codes that occur in training rows, by level: bits as hex, code 0 first."""


def row_versions(rows: pa.Table) -> np.ndarray:
    """int64 (n,): changes when a row's image is another file than it was."""
    columns = [rows[name].to_pylist() for name in ("key", "copy", "size", "etag")]
    hashes = (
        hashlib.blake2b(f"{key}\0{copy}\0{size}\0{etag}".encode(), digest_size=8).digest()
        for key, copy, size, etag in zip(*columns, strict=True)
    )
    return np.frombuffer(b"".join(hashes), np.int64)


def shard_name(schema: CodeSchema, rows: pa.Table, versions: np.ndarray) -> str:
    """File of the shard made for `rows` of a snapshot, relative to the dataset's folder."""
    hashed = hashlib.sha256(str(schema).encode())
    hashed.update(np.ascontiguousarray(rows["id"]).tobytes() + versions.tobytes())
    hashed.update(np.asarray(rows["label"].fill_null(-1)).astype(np.int64).tobytes())
    hashed.update("".join(rows["split"].to_pylist()).encode())
    return f"part-{hashed.hexdigest()[:24]}.parquet"


def build_shard(
    schema: CodeSchema, rows: pa.Table, versions: np.ndarray, maps: Sequence[np.ndarray], errors: np.ndarray
) -> pa.Table:
    """Table of a shard from rows of the snapshot, int64 code maps (n, h, w) a level, top first, and errors (n,).

    Raises ValueError when codes do not fit the levels: a tokenizer that differs from the schema's.
    """
    require(len(maps) == len(schema.levels), f"there must be {len(schema.levels)} code maps, got {len(maps)}")
    require(errors.shape == (rows.num_rows,), f"errors must have shape ({rows.num_rows},), got {errors.shape}")
    require(
        bool(np.isfinite(errors).all()),
        "errors must be finite, got NaN or infinity: did the tokenizer's fit diverge?",
    )
    arrow = schema.arrow()
    fixed = [rows[field.name].combine_chunks().cast(field.type) for field in SNAPSHOT_COLUMNS]
    pairs = zip(schema.levels, maps, strict=True)
    codes = [_column(level, values, rows.num_rows, arrow.field(level.name).type) for level, values in pairs]
    last = pa.array(errors.astype(np.float32), ERROR_COLUMN.type)
    return pa.table([*fixed, pa.array(versions, VERSION_COLUMN.type), *codes, last], schema=arrow)


def rewrite_rows(table: pa.Table, places: np.ndarray, labels: np.ndarray, splits: Sequence[str]) -> pa.Table:
    """A shard's rows at `places` under new labels (-1: none) and splits; their codes stay."""
    table = table.take(pa.array(places))
    for name, column in (("label", pa.array(labels, mask=labels < 0)), ("split", pa.array(splits))):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


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


def code_column_paths(schema: CodeSchema) -> list[str]:
    """The code columns' paths inside a Parquet file."""
    return [f"{level.name}.list.element" for level in schema.levels]


def encode_shard(table: pa.Table) -> bytes:
    """`table` as Parquet; equal tables give equal bytes.

    Parquet keeps 16-bit integers as 32 bits: the dictionary encoding is what packs a code into log2(K) bits.
    """
    schema = CodeSchema.from_arrow(table.schema)
    paths = code_column_paths(schema)
    largest = max(level.codebook_size for level in schema.levels)
    data = parquet.to_bytes(
        table,
        use_dictionary=[*paths, "label", "split", "copy"],
        dictionary_pagesize_limit=8 * largest + (1 << 20),  # above it the writer would fall back to 32 bits a code
        write_statistics=["id", "label", "split", "copy", "error"],
        row_group_size=max(table.num_rows, 1),
    )
    assert set(paths) <= set(dictionary_encoded_columns(data)), "code columns must be dictionary-encoded"
    return data


def dictionary_encoded_columns(data: bytes) -> list[str]:
    """Column paths of a Parquet file that are dictionary-encoded in every row group, by its footer."""
    footer = pq.ParquetFile(pa.BufferReader(data)).metadata
    counted: Counter[str] = Counter()
    for group in range(footer.num_row_groups):
        columns = [footer.row_group(group).column(number) for number in range(footer.num_columns)]
        counted.update(column.path_in_schema for column in columns if "RLE_DICTIONARY" in column.encodings)
    return [path for path, groups in counted.items() if groups == footer.num_row_groups]


def write_shard(folder: str, name: str, table: pa.Table) -> Shard:
    """Write one shard whole or not at all."""
    data = encode_shard(table)
    objects.write_bytes(objects.join(folder, name), data)
    keys, splits = table["key"], Counter(table["split"].to_pylist())
    return Shard(
        **vars(commits.file_entry(name, data)),
        rows=table.num_rows,
        splits=dict(sorted(splits.items())),
        first_key=keys[0].as_py(),
        last_key=keys[-1].as_py(),
        used=_used(table),
    )


def _used(table: pa.Table) -> dict[str, str]:
    training = table.filter(pc.equal(table["split"], TRAIN))
    found = {}
    for level in CodeSchema.from_arrow(table.schema).levels:
        seen = np.zeros(level.codebook_size, bool)
        seen[np.asarray(training[level.name].combine_chunks().flatten())] = True
        found[level.name] = np.packbits(seen).tobytes().hex()
    return found

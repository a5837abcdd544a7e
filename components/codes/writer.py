"""From codes to shards: one Parquet file per list of rows.

A shard's path names the attempt that wrote it, the rows that it was requested for and its content: whoever writes a
path twice writes the same bytes, however late.
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
from components.store import commits, parquet

SHARD_PREFIX = "part-"
NAME_DIGITS, CONTENT_DIGITS = 24, 16
"""Hex digits of the hashes in a shard's path: 96 bits of its rows, so that no two shards of a dataset share a name, and
64 bits of its content."""
DICTIONARY_SLACK = 1 << 20
"""Bytes allowed for a column's dictionary beyond twice the size of its entries."""


@dataclass(frozen=True)
class Shard(commits.FileEntry):
    """One written shard, as the manifest lists it."""

    rows: int
    splits: dict[str, int]
    """Rows by split."""
    first_key: str
    last_key: str
    """Keys of its first and last row; rows are sorted by key."""
    used: dict[str, str]
    """Codes that occur in training rows, by level: one bit per code, code 0 first, as hex."""


def row_versions(rows: pa.Table) -> np.ndarray:
    """int64 (n,): a hash per row that changes when its image does: of key, copy and content, or, where the image was
    never read, of key, copy, size and etag."""
    columns = [rows[name].to_pylist() for name in ("key", "copy", "content", "size", "etag")]
    marks = (
        f"{key}\0{copy}\0{size}\0{etag}" if content is None else f"{key}\0{copy}\0{content.hex()}"
        for key, copy, content, size, etag in zip(*columns, strict=True)
    )
    hashes = (hashlib.blake2b(mark.encode(), digest_size=8).digest() for mark in marks)
    return np.frombuffer(b"".join(hashes), np.int64)  # (n,)


def shard_name(schema: CodeSchema, rows: pa.Table, versions: np.ndarray) -> str:
    """Name of the shard requested for `rows` of a snapshot."""
    hashed = hashlib.sha256(str(schema).encode())
    hashed.update(np.ascontiguousarray(rows["id"]).tobytes() + versions.tobytes())
    # Labels and splits too: a shard is rewritten under a new name when they change.
    hashed.update(np.asarray(rows["label"].fill_null(-1)).astype(np.int64).tobytes())
    hashed.update("".join(rows["split"].to_pylist()).encode())
    return f"{SHARD_PREFIX}{hashed.hexdigest()[:NAME_DIGITS]}.parquet"


def build_shard(
    schema: CodeSchema, rows: pa.Table, versions: np.ndarray, maps: Sequence[np.ndarray], errors: np.ndarray
) -> pa.Table:
    """Table of a shard from n rows of the snapshot, int64 code maps (n, h, w) per level, top first, and errors (n,).

    Raises ValueError when codes do not fit the levels (they were made by another tokenizer than the schema's), or when
    errors are not finite.
    """
    require(len(maps) == len(schema.levels), f"there must be {len(schema.levels)} code maps, got {len(maps)}")
    require(errors.shape == (rows.num_rows,), f"errors must have shape ({rows.num_rows},), got {errors.shape}")
    require(
        bool(np.isfinite(errors).all()),
        "errors must be finite, got NaN or infinity: did the tokenizer's fit diverge?",
    )
    arrow = schema.arrow()
    from_snapshot = [rows[field.name].combine_chunks().cast(field.type) for field in SNAPSHOT_COLUMNS]
    pairs = zip(schema.levels, maps, strict=True)
    codes = [_code_column(level, values, rows.num_rows, arrow.field(level.name).type) for level, values in pairs]
    error_column = pa.array(errors.astype(np.float32), ERROR_COLUMN.type)
    return pa.table([*from_snapshot, pa.array(versions, VERSION_COLUMN.type), *codes, error_column], schema=arrow)


def rewrite_rows(table: pa.Table, row_numbers: np.ndarray, labels: np.ndarray, splits: Sequence[str]) -> pa.Table:
    """The rows `row_numbers` (n,) of a shard with new labels (n,) (-1: none) and n splits; their codes stay."""
    table = table.take(pa.array(row_numbers))
    for name, column in (("label", pa.array(labels, mask=labels < 0)), ("split", pa.array(splits))):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


def _code_column(level: CodeLevel, codes: np.ndarray, rows: int, column_type: pa.DataType) -> pa.Array:
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
    flat = pa.array(codes.astype(level.type.to_pandas_dtype()).reshape(-1))  # (n * h * w,), map by map, row by row
    return pa.FixedSizeListArray.from_arrays(flat, type=column_type)


def code_column_paths(schema: CodeSchema) -> list[str]:
    """Paths of the code columns inside a Parquet file."""
    return [f"{level.name}.list.element" for level in schema.levels]


def encode_shard(table: pa.Table) -> bytes:
    """`table` as Parquet; equal tables give equal bytes.

    Parquet stores a 16-bit integer in 32 bits; only dictionary encoding packs a code into log2(K) bits.
    """
    schema = CodeSchema.from_arrow(table.schema)
    paths = code_column_paths(schema)
    largest_codebook = max(level.codebook_size for level in schema.levels)
    data = parquet.to_bytes(
        table,
        use_dictionary=[*paths, "label", "split", "copy"],
        # A larger dictionary makes the writer fall back to 32 bits per code. Entries take 4 bytes: twice that is safe.
        dictionary_pagesize_limit=8 * largest_codebook + DICTIONARY_SLACK,
        write_statistics=["id", "label", "split", "copy", "error"],
        row_group_size=max(table.num_rows, 1),  # one group: a second one would repeat the dictionary
    )
    assert set(paths) <= set(dictionary_encoded_columns(data)), "code columns must be dictionary-encoded"
    return data


def dictionary_encoded_columns(data: bytes) -> list[str]:
    """Paths of the columns of a Parquet file that its footer says are dictionary-encoded in every row group."""
    footer = pq.ParquetFile(pa.BufferReader(data)).metadata
    encoded_groups: Counter[str] = Counter()
    for group in range(footer.num_row_groups):
        columns = [footer.row_group(group).column(number) for number in range(footer.num_columns)]
        encoded_groups.update(column.path_in_schema for column in columns if "RLE_DICTIONARY" in column.encodings)
    return [path for path, groups in encoded_groups.items() if groups == footer.num_row_groups]


def write_shard(folder: str, attempt: str, name: str, table: pa.Table) -> Shard:
    """Write `table` as the shard that was requested as `name`, below the folder of `attempt`, whole or not at all."""
    data = encode_shard(table)
    content = hashlib.sha256(data).hexdigest()[:CONTENT_DIGITS]
    entry = commits.store_file(folder, f"{attempt}/{name.removesuffix('.parquet')}-{content}.parquet", data)
    keys, splits = table["key"], Counter(table["split"].to_pylist())
    return Shard(
        **vars(entry),
        rows=table.num_rows,
        splits=dict(sorted(splits.items())),
        first_key=keys[0].as_py(),
        last_key=keys[-1].as_py(),
        used=_used_codes(table),
    )


def _used_codes(table: pa.Table) -> dict[str, str]:
    training = table.filter(pc.equal(table["split"], TRAIN))
    used = {}
    for level in CodeSchema.from_arrow(table.schema).levels:
        occurs = np.zeros(level.codebook_size, bool)  # (k,)
        occurs[np.asarray(training[level.name].combine_chunks().flatten())] = True
        used[level.name] = np.packbits(occurs).tobytes().hex()  # 8 codes per byte, the first one highest
    return used

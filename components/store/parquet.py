"""Tables as the bytes of Parquet files, for stores that hold whole objects."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

METADATA_KEY = b"vqvae2"
"""Key of a schema's metadata under which the project keeps a JSON object about the table."""


def to_bytes(table: pa.Table, **options: Any) -> bytes:
    """`table` as one zstd-compressed file; `options` are those of pyarrow's write_table.

    Equal tables give equal bytes, whatever chunks they consist of.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", **options)
    return sink.getvalue().to_pybytes()


def from_bytes(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in one file, or some of its columns; raises pyarrow.ArrowException or OSError when it is damaged.

    Read without threads: a process that ends while Arrow's idle threads are shutting down is killed by SIGABRT, so that
    finished work would end with a failure (apache/arrow issue 34314).
    """
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)

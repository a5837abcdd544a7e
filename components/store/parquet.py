"""Tables as the bytes of Parquet files, for stores that hold whole objects."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

METADATA_KEY = b"vqvae2"
"""Key of a schema's metadata under which the project keeps a JSON object about the table."""
TAIL_BYTES = 1 << 13
"""Bytes read at the end of a file to find its footer: longer footers cost one more read."""


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


def read_columns(read: Callable[[int, int], bytes], size: int, columns: Sequence[str]) -> pa.Table:
    """Some columns of a file of `size` bytes, without reading the others; raises as `from_bytes` does.

    `read(start, stop)` gives bytes of the file. It is called for the footer, and once for the stretch of each row group
    from the first to the last of the columns: two requests for a file of one group.
    """
    content = np.zeros(size, np.uint8)  # as the file, but with zeros where nothing was read: those take no memory

    def fetch(start: int, stop: int) -> None:
        data = read(start, stop)
        if len(data) != stop - start:
            raise OSError(f"bytes {start} to {stop} of a file of {size} must be there, got {len(data)}")
        content[start:stop] = np.frombuffer(data, np.uint8)

    tail = min(size, TAIL_BYTES)
    fetch(size - tail, size)
    footer = int.from_bytes(content[-8:-4].tobytes(), "little") + 8  # then its length and the letters PAR1
    if tail < footer <= size:
        fetch(size - footer, size - tail)
    with pq.ParquetFile(pa.BufferReader(pa.py_buffer(content)), pre_buffer=False) as file:
        for group in range(file.metadata.num_row_groups):
            fetch(*_stretch(file.metadata.row_group(group), columns))
        return file.read(columns=list(columns), use_threads=False)


def _stretch(group: pq.RowGroupMetaData, columns: Sequence[str]) -> tuple[int, int]:
    """Where the first of `columns` starts in the file, and where the last of them stops."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    chosen = [chunk for chunk in chunks if chunk.path_in_schema in columns]
    starts = [chunk.dictionary_page_offset or chunk.data_page_offset for chunk in chosen]
    return min(starts), max(start + chunk.total_compressed_size for start, chunk in zip(starts, chosen, strict=True))

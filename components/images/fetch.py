"""The encoded bytes of one row, wherever they lie; and what has changed since the row was listed."""

import functools
import hashlib
import threading

import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import StorageError
from components.store import objects

CACHED_ROW_GROUPS = 2
"""Row groups of packed images that a process keeps: rows are read in their order, so each is read once."""
_reading = threading.Lock()


def fetch_image(row: dict) -> bytes:
    """Encoded image of one row (uri, member, size, etag).

    Raises FileNotFoundError when the store says twice that it is not there, StorageError when the store cannot say or
    when the content is no longer what was listed.
    """
    try:
        data = _read(row)
    except FileNotFoundError:
        objects.stat_object(
            row["uri"]
        )  # asked in another way: an answer that something is there is a failure of the store
        raise StorageError(f"{row['uri']} is there but cannot be read: run again") from None
    by_content = row["etag"].startswith("sha256:")
    same = len(data) == row["size"] if not by_content else row["etag"] == content_etag(data)
    if not same and (by_content or row["size"] is not None):
        name = row["uri"] if row["member"] is None else f"{row['key']} in {row['uri']}"
        raise StorageError(f"{name} changed since the snapshot listed it: run again to take a new snapshot")
    return data


def content_etag(data: bytes) -> str:
    """Etag by content."""
    return f"sha256:{hashlib.sha256(data).hexdigest()[:32]}"


def _read(row: dict) -> bytes:
    uri, member = row["uri"], row["member"]
    if member is None:
        return objects.read_bytes(uri)
    if member.count(":") == 1:
        offset, size = map(int, member.split(":"))
        _check_unchanged(uri, row["etag"])
        return objects.read_range(uri, offset, offset + size)
    group, place, column = member.split(":", 2)
    with _reading:  # of several threads that want the same row group, one reads it
        images = _row_group(uri, row["etag"] if not row["etag"].startswith("sha256:") else "", int(group), column)
    return images[int(place)].as_py() or b""


@functools.lru_cache(maxsize=1024)
def _check_unchanged(uri: str, etag: str) -> None:
    """Offsets into another content would be noise; looked up once a process and file."""
    if objects.stat_object(uri).etag != etag:
        raise StorageError(f"{uri} changed since the snapshot listed it: run again to take a new snapshot")


@functools.lru_cache(maxsize=CACHED_ROW_GROUPS)
def _row_group(uri: str, etag: str, group: int, column: str) -> pa.Array:
    """Encoded images of one row group; `etag` is empty where each image has one of its own."""
    if etag:
        _check_unchanged(uri, etag)
    with objects.open_object(uri) as source, pq.ParquetFile(source, pre_buffer=False) as table:
        images = table.read_row_group(group, columns=[column], use_threads=False)[column].combine_chunks()
    images = images.chunk(0) if isinstance(images, pa.ChunkedArray) else images
    return images.field("bytes") if pa.types.is_struct(images.type) else images

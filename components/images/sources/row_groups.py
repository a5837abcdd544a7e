"""Images of a Parquet row group, decoded once for all rows that are asked for together, in bounded memory.

Parquet has no way to a row but through the rows before it. A row group that fits into the cache is decoded once and
kept; of a larger one, the rows behind the last one asked for are kept, and it is read again when an earlier one is
wanted.
"""

import bisect
import functools
import threading
from collections import OrderedDict
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.errors import StorageError
from components.images.decode import UnusableImage
from components.images.sources.archives import EncodedImage
from components.store import objects

CACHED_BYTES = 256 << 20
"""Most bytes of encoded images that a process keeps, beside the rows being decoded."""
CACHED_FOOTERS = 16
"""Tables whose footers a process keeps."""
ROWS_PER_READ = 64
"""Rows decoded at a time."""
READ_BYTES = 8 << 20
"""Bytes per request while a row group is read."""
READ_ERRORS = (pa.ArrowException, OSError)
"""What pyarrow raises for a damaged file; StorageError and FileNotFoundError, of the store, must pass."""


class RowGroup:
    """Images of one row group of one table."""

    def __init__(self, uri: str, group: int, column: str) -> None:
        self._uri, self._group, self._column = uri, group, column
        self._lock = threading.Lock()
        self._restart()

    @property
    def cached_bytes(self) -> int:
        """Bytes of the images that are held."""
        return self._bytes

    def image(self, row: int) -> EncodedImage:
        """The encoded image of one row, counted within the group; raises StorageError or FileNotFoundError."""
        with self._lock:
            if self._starts and row < self._starts[0]:
                self._restart()
            while row >= self._stop and self._damage is None:
                self._read_more()
            if row >= self._stop:
                assert self._damage is not None
                return self._damage
            number = bisect.bisect_right(self._starts, row) - 1
            image = self._decoded[number][row - self._starts[number]].as_py()
            return image or UnusableImage("empty", "the table has no bytes in this row")

    def _restart(self) -> None:
        # Rows up to self._stop have been decoded; those from self._starts[0] on are held, by array and its first row.
        self._decoded: list[pa.Array] = []
        self._starts: list[int] = []
        self._stop = self._bytes = 0
        self._damage: UnusableImage | None = None
        self._batches = self._read()

    def _read_more(self) -> None:
        try:
            images = next(self._batches)
        except StopIteration:
            self._damage = UnusableImage("damaged_archive", f"row group {self._group} ends at row {self._stop}")
        except (StorageError, FileNotFoundError):
            self._restart()
            raise
        except READ_ERRORS as error:
            rest = f"row group {self._group} of the table cannot be decoded from row {self._stop} on"
            self._damage = UnusableImage("damaged_archive", f"{rest}: {error}")
        else:
            self._decoded.append(images)
            self._starts.append(self._stop)
            self._stop += len(images)
            self._bytes += images.nbytes
            while self._bytes > CACHED_BYTES and len(self._decoded) > 1:
                self._bytes -= self._decoded.pop(0).nbytes
                del self._starts[0]

    def _read(self) -> Iterator[pa.Array]:
        """All images, ROWS_PER_READ at a time."""
        with _open_table(self._uri) as table:
            nested = pa.types.is_struct(table.schema_arrow.field(self._column).type)
            leaf = f"{self._column}.bytes" if nested else self._column
            for batch in table.iter_batches(ROWS_PER_READ, row_groups=[self._group], columns=[leaf], use_threads=False):
                yield pc.struct_field(batch.column(0), "bytes") if nested else batch.column(0)


def _open_table(uri: str) -> pq.ParquetFile:
    stored = objects.stat_object(uri)
    return pq.ParquetFile(
        objects.range_file(uri, stored.size),
        metadata=_read_footer(uri, stored.size, stored.etag),
        pre_buffer=False,
        buffer_size=READ_BYTES,
        page_checksum_verification=True,
    )


@functools.lru_cache(maxsize=CACHED_FOOTERS)
def _read_footer(uri: str, size: int, etag: str) -> pq.FileMetaData:
    """Where the row groups of a table of this size and etag are."""
    with pq.ParquetFile(objects.range_file(uri, size), pre_buffer=False) as table:
        return table.metadata


_cache: OrderedDict[tuple[str, str, int, str], RowGroup] = OrderedDict()  # least recently used first
_cache_lock = threading.Lock()


def row_group(uri: str, version: str, group: int, column: str) -> RowGroup:
    """The row group from this process's cache; by `version` too, so that a rewritten table is read again."""
    key = (uri, version, group, column)
    with _cache_lock:
        images = _cache.pop(key, None) or RowGroup(uri, group, column)
        _cache[key] = images
        while len(_cache) > 1 and sum(cached.cached_bytes for cached in _cache.values()) > CACHED_BYTES:
            _cache.popitem(last=False)
        return images


def forget_row_groups() -> None:
    """Empty the cache."""
    with _cache_lock:
        _cache.clear()

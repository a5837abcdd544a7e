"""Parts of stored files, in few requests: a request costs as much as reading some bytes that nobody needs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from components.errors import StorageError
from components.store import objects

BYTES_PER_REQUEST = 1 << 16
"""Bytes that cost about as much as one more request: a smaller gap between two ranges is read, a larger one skipped."""
SPARSE_READ_BYTES = 8 << 10
"""Bytes read at a time while most of a file is skipped: a header, the small files after it, the next header."""
STREAM_READ_BYTES = 4 << 20
"""Bytes read at a time while all of a file is read."""
JOINED_RANGES_BYTES = 8 << 20
"""Most bytes of ranges that are read together (bounds memory, with many requests at the same time)."""


class ByteRange(NamedTuple):
    """Part of a file."""

    offset: int
    size: int

    @property
    def stop(self) -> int:
        """Offset of the first byte after it."""
        return self.offset + self.size


class RisingReader:
    """Small parts of one stored file, asked for by rising offset.

    Where they lie close together the file is read in large pieces, else each is a request of its own.
    """

    def __init__(self, uri: str, size: int) -> None:
        """`size`: bytes of the file."""
        self.size = size
        self._uri = uri
        self._start, self._piece = 0, b""  # the last bytes read
        # Requests that reading each part by itself would have taken so far, and where the last of them would end.
        self._sparse_requests = self._sparse_stop = 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer at the end of the file."""
        stop = min(offset + size, self.size)
        if stop > self._sparse_stop:
            self._sparse_requests += 1
            self._sparse_stop = max(stop, offset + SPARSE_READ_BYTES)
        if not (self._start <= offset and stop <= self._start + len(self._piece)):
            # Bytes per request up to here, were each part read by itself, against what a request is worth.
            lie_close = offset < (self._sparse_requests - 1) * BYTES_PER_REQUEST
            ahead = STREAM_READ_BYTES if lie_close else SPARSE_READ_BYTES
            self._start, self._piece = offset, self._read_range(offset, min(max(stop, offset + ahead), self.size))
        return self._piece[offset - self._start : max(0, stop - self._start)]

    def _read_range(self, start: int, stop: int) -> bytes:
        data = objects.read_range(self._uri, start, stop) if stop > start else b""
        if len(data) < stop - start:
            raise StorageError(f"{self._uri} became shorter while it was read: run again")
        return data


def join_ranges(ranges: Sequence[ByteRange]) -> Iterator[list[int]]:
    """Groups of positions in `ranges` that one request should read: by rising offset, small gaps between them."""
    group: list[int] = []
    start = stop = 0  # of the group
    for position in sorted(range(len(ranges)), key=lambda position: ranges[position]):
        part = ranges[position]
        apart = part.offset - stop > BYTES_PER_REQUEST or max(part.stop, stop) - start > JOINED_RANGES_BYTES
        if group and apart:
            yield group
            group = []
        if not group:
            start = stop = part.offset
        group.append(position)
        stop = max(stop, part.stop)
    if group:
        yield group

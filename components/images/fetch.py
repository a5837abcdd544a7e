"""The encoded bytes of images, checked against what was listed; images that lie together are read by one request."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from components.errors import StorageError
from components.images.decode import UnusableImage
from components.images.listing import content_of
from components.images.sources.archives import EncodedImage, lost_detail
from components.images.sources.registry import archive_format
from components.store import objects

REMOTE_READS = 16
"""Reads at the same time from an object store, where a read has a long latency and costs little CPU."""
CHECKED_ARCHIVES = 1024
"""Packed files that a process remembers as unchanged, so that it checks each file once, not once per image."""


class ImageChanged(StorageError):
    """An image or its packed file has other content than the snapshot listed."""


Row = Mapping[str, Any]
"""A row of a listing or snapshot: key, uri, member, size, etag, content."""
FetchError = UnusableImage | FileNotFoundError | StorageError
"""Why there is no image: it is unusable however often it is read, the store confirms that it is missing, or the store
cannot be read or has other content than was listed."""
T = TypeVar("T")


def map_images(rows: Sequence[Row], work: Callable[[bytes], T]) -> Iterator[tuple[Row, T | FetchError]]:
    """Each row with `work(encoded image)`, or with the error that it or the reading raised; in any order."""

    def fetch_and_work(group: list[Row]) -> list[T | FetchError]:
        return [image if isinstance(image, Exception) else _attempt(work, image) for image in fetch_images(group)]

    groups = list(join_rows(rows))
    # Local images are worked on in this thread: decoding would compete for the same CPU.
    threads = REMOTE_READS if any("://" in group[0]["uri"] for group in groups) else 1
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(fetch_and_work, groups) if threads > 1 else map(fetch_and_work, groups)
        for group, results in zip(groups, done, strict=True):
            yield from zip(group, results, strict=True)


def _attempt(work: Callable[[bytes], T], image: bytes) -> T | UnusableImage:
    try:
        return work(image)
    except UnusableImage as error:
        return error


def join_rows(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Groups of rows that `fetch_images` reads at once, in the order of their files. Groups bound the memory."""
    by_file: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["member"] is None or lost_detail(row["member"]) is not None:
            yield [row]
        else:
            by_file.setdefault((row["uri"], _version(row)), []).append(row)
    for (uri, _), packed in sorted(by_file.items()):
        for group in archive_format(uri).join_members([row["member"] for row in packed]):
            yield [packed[position] for position in group]


def fetch_images(rows: Sequence[Row]) -> Iterator[bytes | FetchError]:
    """Encoded images of one group of `join_rows`, in its order."""
    fetched = 0
    error: StorageError | FileNotFoundError | None = None
    try:
        for row, image in zip(rows, _read_encoded(rows), strict=True):
            fetched += 1
            yield image if isinstance(image, UnusableImage) else _unchanged(row, image)
    except StorageError as failure:
        error = failure
    except FileNotFoundError as missing:
        error = _confirmed(missing, rows[0]["uri"])
    if error is not None:
        yield from [error] * (len(rows) - fetched)


def _confirmed(missing: FileNotFoundError, uri: str) -> FileNotFoundError | StorageError:
    """Ask the store again whether an object is missing."""
    try:
        objects.stat_object(uri)
    except (FileNotFoundError, StorageError) as error:
        return error
    return StorageError(f"{uri} exists but cannot be read ({missing}): run again")


def _unchanged(row: Row, data: bytes) -> bytes | StorageError:
    """`data`, if it is what was listed."""
    if row["content"] is not None:
        unchanged = row["content"] == content_of(data)
    else:
        unchanged = row["size"] is None or row["size"] == len(data)
    if unchanged:
        return data
    name = row["uri"] if row["member"] is None else f"{row['key']} in {row['uri']}"
    return ImageChanged(f"{name} changed since the snapshot listed it: run again to take a new snapshot")


def _read_encoded(rows: Sequence[Row]) -> Iterable[EncodedImage]:
    uri, member = rows[0]["uri"], rows[0]["member"]
    if member is None:
        return [objects.read_bytes(uri)]
    if (lost := lost_detail(member)) is not None:
        return [UnusableImage("damaged_archive", lost)]
    version = _version(rows[0])
    if version:
        _check_archive(uri, version)
    return archive_format(uri).read_members(uri, [row["member"] for row in rows], version)


def _version(row: Row) -> str:
    # An image whose content is known is checked by itself: its packed file may have been written anew.
    return "" if row["content"] is not None else row["etag"]


@functools.lru_cache(maxsize=CHECKED_ARCHIVES)
def _check_archive(uri: str, etag: str) -> None:
    """Raise ImageChanged when a packed file changed: members are positions in the file that was listed."""
    if objects.stat_object(uri).etag != etag:
        raise ImageChanged(f"{uri} changed since the snapshot listed it: run again to take a new snapshot")

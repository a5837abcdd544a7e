"""The encoded bytes of images, checked against what was listed; images that lie together are read by one request."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.errors import StorageError
from components.images.decode import UnusableImage
from components.images.listing import content_of
from components.images.sources.archives import EncodedImage, lost_detail
from components.images.sources.registry import archive_format
from components.store import objects

CHECKED_ARCHIVES = 1024
"""Packed files that a process remembers as unchanged, so that it checks each file once, not once per image."""


class ImageChanged(StorageError):
    """An image or its packed file has other content than the snapshot listed."""


Row = Mapping[str, Any]
"""A row of a listing or snapshot: key, uri, member, size, etag, content."""
FetchedImage = bytes | UnusableImage | FileNotFoundError | StorageError
"""Encoded image, or why there is none: it is unusable however often it is read, the store confirms that it is missing,
or the store cannot be read or has other content than was listed."""


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


def fetch_images(rows: Sequence[Row]) -> Iterator[FetchedImage]:
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

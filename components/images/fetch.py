"""The encoded bytes of one row's image, checked against what was listed."""

import functools
from collections.abc import Mapping
from typing import Any

from components.errors import StorageError
from components.images.listing import content_of
from components.images.sources.registry import archive_format
from components.store import objects

CHECKED_ARCHIVES = 1024
"""Packed files that a process remembers as unchanged, so that it checks each file once, not once per image."""


def fetch_image(row: Mapping[str, Any]) -> bytes:
    """Encoded image of one row (key, uri, member, size, etag, content).

    Raises FileNotFoundError when the store confirms that it is missing; StorageError when the store cannot be read,
    or when the content differs from what was listed.
    """
    try:
        data = _read_encoded(row)
    except FileNotFoundError:
        objects.stat_object(row["uri"])  # asks again: raises FileNotFoundError unless the file exists
        raise StorageError(f"{row['uri']} exists but cannot be read: run again") from None
    if row["content"] is not None:
        unchanged = row["content"] == content_of(data)
    else:
        unchanged = row["size"] is None or row["size"] == len(data)
    if not unchanged:
        name = row["uri"] if row["member"] is None else f"{row['key']} in {row['uri']}"
        raise StorageError(f"{name} changed since the snapshot listed it: run again to take a new snapshot")
    return data


def _read_encoded(row: Mapping[str, Any]) -> bytes:
    uri, member = row["uri"], row["member"]
    if member is None:
        return objects.read_bytes(uri)
    if row["content"] is None:  # otherwise the image itself is checked, and its file may have been written anew
        _check_archive(uri, row["etag"])
    return archive_format(uri).read_member(uri, member, row["etag"])


@functools.lru_cache(maxsize=CHECKED_ARCHIVES)
def _check_archive(uri: str, etag: str) -> None:
    """Raise StorageError when a packed file changed: members are positions in the file that was listed."""
    if objects.stat_object(uri).etag != etag:
        raise StorageError(f"{uri} changed since the snapshot listed it: run again to take a new snapshot")

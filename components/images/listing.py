"""All images of a source, as rows, before any image is opened."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from components.artifacts import digest_of
from components.images.snapshot import CONTENT, SNAPSHOT_SCHEMA
from components.store import commits

LISTING_SCHEMA = pa.schema(
    [SNAPSHOT_SCHEMA.field(name) for name in ("key", "label", "uri", "member", "size", "etag", "content")]
)


@dataclass(frozen=True)
class Listing:
    """All images of a source."""

    table: pa.Table
    """Rows of LISTING_SCHEMA by rising key; keys are unique, URIs are absolute."""
    classes: tuple[str, ...]
    """Name of each label; none where the images have no labels."""
    files: tuple[commits.FileEntry, ...] = ()
    """Files that the source wrote into the snapshot's folder."""
    ignored: int = 0
    """Files passed over: hidden, or without an image's extension."""

    def digest(self) -> str:
        """Changes when an image is added, removed, renamed or rewritten: then a new snapshot is needed."""
        columns = [self.table[name].to_pylist() for name in ("key", "label", "size", "etag")]
        return digest_of([list(self.classes), columns])


def content_of(data: bytes) -> bytes:
    """The hash of an image's encoded bytes that snapshots keep."""
    return hashlib.sha256(data).digest()[: CONTENT.byte_width]

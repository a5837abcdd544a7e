"""What the sources of packed images share: index every file below `images.uri`, and list all members.

A row's `member` says where its image is in the packed file, in a form that the file's ArchiveFormat defines. The row's
etag is the packed file's: a file that is rewritten counts as new images, and a file that is added changes no other row.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import UNNUMBERED_SCHEMA, Listing, ListingBuilder, Numbering
from components.images.sources.file_tree import FileTree
from components.images.sources.labels import Label, number_labels
from components.store.objects import StoredObject

CONCURRENT_INDEXES = 8
"""Packed files whose indexes are read at the same time."""


class ArchiveMember(NamedTuple):
    """One image in a packed file."""

    name: str
    """Unique in the file; `<path of the file>/<name>` is the image's key."""
    label: Label
    member: str
    """Where the image is in the file."""
    size: int | None
    """Bytes of the encoded image; None where the index lacks it."""


class ArchiveIndex(NamedTuple):
    """The images of one packed file."""

    members: Sequence[ArchiveMember]
    class_names: Sequence[str] = ()
    """Name of each label's number, where the file has them."""
    ignored: int = 0
    """Files in the packed file that are passed over: hidden, or neither an image nor a label."""


@dataclass(frozen=True, kw_only=True)
class ArchiveFormat:
    """A file format that packs many encoded images."""

    extension: str
    """Of its files, in lower case and without the dot."""
    index: Callable[[StoredObject, ImagesConfig], ArchiveIndex]
    """Finds the images of a file without reading them; raises ValueError for a file of another format."""
    read_member: Callable[[str, str, str], bytes]
    """(uri, member, version) -> encoded image. `version` is the etag of the packed file, or empty where each image has
    an etag of its own; a reader that caches must use it as part of the key. The bytes are those of an image file (PNG,
    JPEG, ...). Raises UnusableImage (components/images/decode.py) for a member that cannot be read, which becomes a
    reject, and StorageError or FileNotFoundError for the packed file; any other error stops the step."""


def list_archives(config: ImagesConfig, archive: ArchiveFormat, without: Sequence[str]) -> Listing:
    """All images packed in the files of one format below `config.uri`."""
    tree = FileTree(config, (archive.extension,), f"a folder with .{archive.extension} files", without)
    files, builder = tree.sorted_files(), ListingBuilder()
    labels: set[Label] = set()
    class_names: Sequence[str] = ()
    ignored = 0
    for file, index in _indexes(files, config, archive):
        # From the first file that has any: all files of a source number their classes alike.
        class_names = class_names or index.class_names
        ignored += index.ignored
        labels.update(member.label for member in index.members)
        builder.add(_member_rows(file, index.members))
    require(builder.rows > 0, f"images.uri must hold images, found none in the {len(files)} files under {tree.root}")

    def number(texts: Collection[str]) -> Numbering:
        ordered = list(labels)
        numbers, classes = number_labels(ordered, class_names)
        by_text = zip(map(str, ordered), numbers, strict=True)
        return Numbering({text: value for text, value in by_text if text in texts}, classes)

    return builder.finish(number, ignored=tree.ignored + ignored)


def _indexes(
    files: Sequence[StoredObject], config: ImagesConfig, archive: ArchiveFormat
) -> Iterator[tuple[StoredObject, ArchiveIndex]]:
    """The index of each file in order; CONCURRENT_INDEXES are read at the same time, and no more are kept."""
    with ThreadPoolExecutor(CONCURRENT_INDEXES) as pool:
        reading: deque[tuple[StoredObject, Future[ArchiveIndex]]] = deque()
        for file in files:
            reading.append((file, pool.submit(archive.index, file, config)))
            if len(reading) >= CONCURRENT_INDEXES:
                first, index = reading.popleft()
                yield first, index.result()
        for first, index in reading:
            yield first, index.result()


def _member_rows(file: StoredObject, members: Sequence[ArchiveMember]) -> pa.Table:
    count = len(members)
    columns = [
        [f"{file.path}/{member.name}" for member in members],
        [None if member.label is None else str(member.label) for member in members],
        [file.uri] * count,
        [member.member for member in members],
        [member.size for member in members],
        [file.etag] * count,
        [None] * count,
    ]
    return pa.table(columns, schema=UNNUMBERED_SCHEMA)

"""What the sources of packed images share: index every file below `images.uri`, and list all members.

A row's `member` says where its image is in the packed file, in a form that the file's ArchiveFormat defines. The row's
etag is the packed file's: a file that is rewritten counts as new images, and a file that is added changes no other row.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from components.config import require
from components.images.config import ImagesConfig
from components.images.decode import UnusableImage
from components.images.listing import LISTING_SCHEMA, Listing
from components.images.sources.file_tree import read_file_tree
from components.images.sources.labels import Label, number_labels
from components.store.objects import StoredObject

CONCURRENT_INDEXES = 8
"""Packed files whose indexes are read at the same time."""


EncodedImage = bytes | UnusableImage
"""The bytes of an image file (PNG, JPEG, ...), or why the packed file does not have them."""
_LOST = "lost: "


class ArchiveMember(NamedTuple):
    """One image in a packed file."""

    name: str
    """Unique in the file; `<path of the file>/<name>` is the image's key."""
    label: Label
    member: str
    """Where the image is in the file."""
    size: int | None
    """Bytes of the encoded image; None where the index lacks it."""


def lost_member(name: str, detail: str) -> ArchiveMember:
    """Something in a packed file that is known to be unreadable: it is listed, so that it becomes a reject."""
    return ArchiveMember(name, None, f"{_LOST}{detail}", None)


def lost_detail(member: str) -> str | None:
    """What `lost_member` was told; None for a member that can be read."""
    return member.removeprefix(_LOST) if member.startswith(_LOST) else None


class ArchiveIndex(NamedTuple):
    """The images of one packed file."""

    members: Sequence[ArchiveMember]
    """Its images, and what of it is lost."""
    class_names: tuple[str, ...] = ()
    """The file's list of class names, by which its numbers were replaced (`named_labels`); empty where it has none."""
    ignored: int = 0
    """Files in the packed file that are passed over: hidden, or neither an image nor a label."""


@dataclass(frozen=True, kw_only=True)
class ArchiveFormat:
    """A file format that packs many encoded images."""

    extension: str
    """Of its files, in lower case and without the dot."""
    index: Callable[[StoredObject, ImagesConfig], ArchiveIndex]
    """Finds the images of a file without reading them. Raises ValueError for a file of another format, and for one that
    lacks images which cannot be counted; where they can be, each is a `lost_member`."""
    join_members: Callable[[Sequence[str]], Iterator[list[int]]]
    """Members of one file -> groups of positions in them, each of which is read at once."""
    read_members: Callable[[str, Sequence[str], str], Iterable[EncodedImage]]
    """(uri, members of one group, version) -> their images, in their order; bounds its memory. `version` is the etag of
    the packed file, or empty where each image is checked by its content; a reader that caches must use it as part of
    the key. An image that cannot be read, however often it is tried, is an UnusableImage (components/images/decode.py)
    and becomes a reject. Raises StorageError or FileNotFoundError for the packed file; any other error stops the step.
    """


def list_archives(config: ImagesConfig, archive: ArchiveFormat) -> Listing:
    """All images packed in the files of one format below `config.uri`."""
    tree = read_file_tree(config, (archive.extension,), f"a folder with .{archive.extension} files")
    with ThreadPoolExecutor(CONCURRENT_INDEXES) as pool:
        indexes = list(pool.map(lambda file: archive.index(file, config), tree.files))
    class_lists = sorted({index.class_names for index in indexes if index.class_names})
    rows = [(file, member) for file, index in zip(tree.files, indexes, strict=True) for member in index.members]
    require(bool(rows), f"images.uri must hold images, found none in the {len(tree.files)} files under {tree.root}")
    labels, classes = number_labels([member.label for _, member in rows], class_lists)
    columns = [
        [f"{file.path}/{member.name}" for file, member in rows],
        labels,
        [file.uri for file, _ in rows],
        [member.member for _, member in rows],
        [member.size for _, member in rows],
        [file.etag for file, _ in rows],
        [None] * len(rows),
    ]
    table = pa.table(columns, schema=LISTING_SCHEMA).sort_by("key")
    return Listing(table, classes, ignored=tree.ignored + sum(index.ignored for index in indexes))

"""What the sources of packed images share: index every file below `images.uri`, and list all members.

A row's `member` says where its image is in the packed file, in a form that the file's ArchiveFormat defines. The row's
etag is the packed file's: a file that is rewritten counts as new images, and a file that is added changes no other row.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from components.config import require
from components.images.config import ImagesConfig
from components.images.decode import UnusableImage
from components.images.listing import UNNUMBERED_SCHEMA, Listing, ListingBuilder, Numbering
from components.images.sources.file_tree import FileTree
from components.images.sources.labels import Label, class_numbers
from components.store.objects import StoredObject
from components.store.read_ahead import map_ahead

CONCURRENT_INDEXES = 8
"""Packed files whose indexes are read at the same time."""
FAULTS_SHOWN = 10
"""Files named in the error about files that cannot be read."""


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


def list_archives(config: ImagesConfig, archive: ArchiveFormat, without: Sequence[str]) -> Listing:
    """All images packed in the files of one format below `config.uri`."""
    tree = FileTree(config, (archive.extension,), f"a folder with .{archive.extension} files", without)
    files, builder = tree.sorted_files(), ListingBuilder()
    labels: set[Label] = set()
    class_lists: set[tuple[str, ...]] = set()
    ignored, faults = 0, []
    indexes = map_ahead(functools.partial(_index, archive, config), files, CONCURRENT_INDEXES)
    for file, index in zip(files, indexes, strict=True):
        if isinstance(index, ValueError):
            faults.append(str(index))
            continue
        class_lists |= {index.class_names} - {()}
        ignored += index.ignored
        labels.update(member.label for member in index.members)
        builder.add(_member_rows(file, index.members))
    _check_readable(faults, len(files))
    require(builder.rows > 0, f"images.uri must hold images, found none in the {len(files)} files under {tree.root}")

    def number(texts: Collection[str]) -> Numbering:
        number_of, classes = class_numbers(labels, sorted(class_lists))
        return Numbering({str(label): value for label, value in number_of.items() if str(label) in texts}, classes)

    return builder.finish(number, ignored=tree.ignored + ignored)


def _index(archive: ArchiveFormat, config: ImagesConfig, file: StoredObject) -> ArchiveIndex | ValueError:
    """The index of a file, or what is wrong with the file."""
    try:
        return archive.index(file, config)
    except ValueError as error:
        return error


def _check_readable(faults: Sequence[str], files: int) -> None:
    """Raise ValueError that names all files which cannot be listed, up to a few: they are mended together."""
    if len(faults) == 1:
        raise ValueError(faults[0])
    shown = [f"\n  - {fault}" for fault in faults[:FAULTS_SHOWN]]
    more = f"\n  - and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
    require(not faults, f"all {files} packed files must be readable, {len(faults)} are not:{''.join(shown)}{more}")


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

"""Source `webdataset`: tar files in which files whose names are equal up to the first dot form one sample.

An image's extension may follow further dots, as in 2024.05.jpg. Where some sample of the tar has both 0001.jpg and
0001.seg.png, files of the kind seg.png go with images and are none themselves. The member of a row is "offset:size", in
bytes from the start of the tar.
"""

import json
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.archives import (
    ArchiveFormat,
    ArchiveIndex,
    ArchiveMember,
    EncodedImage,
    list_archives,
    lost_member,
)
from components.images.sources.file_tree import IMAGE_EXTENSIONS
from components.images.sources.labels import Label, label_of, label_of_text
from components.images.sources.ranges import ByteRange, RisingReader, join_ranges
from components.images.sources.tar_entries import DamagedPart, TarEntry, tar_entries
from components.store import objects

LABEL_EXTENSIONS = ("cls", "json")
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def list_webdataset(config: ImagesConfig, snapshot_folder: str, without: Sequence[str]) -> Listing:
    """The images of all tars below `config.uri`."""
    return list_archives(config, TAR_ARCHIVE, without)


# --- listing ----------------------------------------------------------------------------------------------------------


class _Name(NamedTuple):
    """The parts of a file's name: a/0001.seg.png is of sample a/0001, kind seg.png, stem a/0001.seg, extension png."""

    sample: str
    kind: str
    stem: str
    extension: str


class _Tar:
    """What the headers of one tar say: its images, the labels in it, and what is passed over."""

    def __init__(self, uri: str, size: int, label_field: str) -> None:
        self._uri, self._label_field = uri, label_field
        self._reader = RisingReader(uri, size)
        self.files: dict[str, TarEntry] = {}
        """Images and labels, by name in the tar."""
        self.labels: dict[str, Label] = {}
        """By stem."""
        self.damage: list[DamagedPart] = []
        self.ignored = 0
        self.bad_labels: list[str] = []

    def read(self) -> None:
        """Read all headers, and the files with labels."""
        links: list[TarEntry] = []
        for entry in tar_entries(self._reader):
            if isinstance(entry, DamagedPart):
                self.damage.append(entry)
            elif entry.kind.endswith("link"):
                links.append(entry)
            elif entry.kind != "other":
                self._add(entry)
        targets = {posixpath.normpath(name): entry for name, entry in self.files.items()} if links else {}
        for link in links:
            folder = posixpath.dirname(link.name) if link.kind == "symbolic link" else ""
            target = targets.get(posixpath.normpath(posixpath.join(folder, link.target)))
            if target is None:
                self.ignored += 1
            else:
                self._add(target._replace(name=link.name))

    def _add(self, entry: TarEntry) -> None:
        name = _parts(entry.name)
        is_label = name.extension in LABEL_EXTENSIONS
        if posixpath.basename(entry.name).startswith(".") or (not is_label and name.extension not in IMAGE_EXTENSIONS):
            self.ignored += 1
            return
        require(entry.name not in self.files, f"{self._uri} must hold each file once, '{entry.name}' is repeated")
        self.files[entry.name] = entry
        if is_label and entry.data.stop <= self._reader.size:
            # With both a .cls and a .json file, the first one in the tar counts.
            self.labels.setdefault(name.stem, self._read_label(entry, name.extension))

    def _read_label(self, entry: TarEntry, extension: str) -> Label:
        text = self._reader.read(*entry.data)
        try:
            if extension == "cls":
                return label_of_text(text)
            fields: Any = json.loads(text)
            require(isinstance(fields, dict), "a .json file must hold an object with one field per property")
            return label_of(fields.get(self._label_field))
        except ValueError as error:
            self.bad_labels.append(f"'{entry.name}': {error}")
            return None


def _index_tar(file: objects.StoredObject, config: ImagesConfig) -> ArchiveIndex:
    """Images of one tar; only headers and labels are read."""
    tar = _Tar(file.uri, file.size, config.label_column)
    tar.read()
    _check_whole(file, tar)
    require(
        not tar.bad_labels,
        f"the labels in {file.uri} must be numbers or names, got {len(tar.bad_labels)} others, for example "
        f"{next(iter(tar.bad_labels), None)}: mend them, or set images.label_column to another field",
    )
    images = _images(tar, file.uri)
    labelled = {_parts(name).stem for name in images} | {_parts(name).sample for name in images}
    unused = len(tar.files) - len(images) - sum(_is_label(name) and _parts(name).stem in labelled for name in tar.files)
    members = [_member(entry, tar.labels) for entry in images.values()]
    lost = [_lost_part(part, file.size) for part in tar.damage]
    return ArchiveIndex([*members, *lost], ignored=tar.ignored + unused)


def _check_whole(file: objects.StoredObject, tar: _Tar) -> None:
    """Raise ValueError for a file that is no tar, and for one that was cut: what it lacks cannot be counted."""
    require(file.size > 0, f"{file.uri} must be a tar, it is empty: write it again or take it out")
    nothing_read = not tar.files and not tar.ignored and any(part.stop > part.start for part in tar.damage)
    if nothing_read:
        start = objects.read_range(file.uri, 0, min(8, file.size))
        compression = next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), None)
        how = f"it is compressed with {compression}: unpack it" if compression else f"it begins with {start.hex()}"
        raise ValueError(f"{file.uri} must be a whole, uncompressed tar, {how}, write it again or take it out")
    cut = [entry.name for entry in tar.files.values() if entry.data.stop > file.size]
    unreadable = [part.start for part in tar.damage if part.start < part.stop == file.size]
    where = f"'{cut[0]}'" if cut else f"byte {max(unreadable, default=0)}"
    require(
        not cut and not unreadable,
        f"{file.uri} must be a whole tar, it is cut or damaged from {where} to its end, after "
        f"{len(tar.files) - len(cut)} files: write it again or take it out",
    )


def _images(tar: _Tar, uri: str) -> dict[str, TarEntry]:
    """The images of a tar, by name: all but those that go with the image of their sample, such as a mask."""
    names = {name: _parts(name) for name in tar.files if not _is_label(name)}
    plain: dict[str, str] = {}  # sample -> its image without further dots
    for name, parts in names.items():
        if parts.kind == parts.extension:
            require(
                parts.sample not in plain,
                f"a sample must have one image, '{parts.sample}' in {uri} has {plain.get(parts.sample)!r} and "
                f"{name!r}: keep one",
            )
            plain[parts.sample] = name
    companions = {parts.kind for parts in names.values() if parts.kind != parts.extension and parts.sample in plain}
    return {name: tar.files[name] for name, parts in names.items() if parts.kind not in companions}


def _member(entry: TarEntry, labels: dict[str, Label]) -> ArchiveMember:
    parts = _parts(entry.name)
    label = labels.get(parts.stem, labels.get(parts.sample))
    if entry.kind == "sparse":
        return lost_member(entry.name, "the tar stores it as a sparse file: write it again without --sparse")
    return ArchiveMember(entry.name, label, f"{entry.data.offset}:{entry.data.size}", entry.data.size)


def _lost_part(part: DamagedPart, size: int) -> ArchiveMember:
    if part.start == size:
        return lost_member(
            "end of the tar", "the mark that ends a tar is missing: files may be lost behind the last one"
        )
    lost = f"bytes {part.start} to {part.stop} have no readable header: at least one file in them is lost"
    return lost_member(f"damaged at byte {part.start:015}", lost)


def _is_label(name: str) -> bool:
    return _parts(name).extension in LABEL_EXTENSIONS


def _parts(path: str) -> _Name:
    folder, _, name = path.rpartition("/")
    first, _, kind = name.partition(".")
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    return _Name(posixpath.join(folder, first), kind.lower(), posixpath.join(folder, stem), extension.lower())


# --- reading ----------------------------------------------------------------------------------------------------------


def _range_of(member: str) -> ByteRange:
    offset, size = map(int, member.split(":"))
    return ByteRange(offset, size)


def _join_members(members: Sequence[str]) -> Iterator[list[int]]:
    return join_ranges([_range_of(member) for member in members])


def _read_tar_members(uri: str, members: Sequence[str], version: str) -> list[EncodedImage]:
    """Images that lie close together, by one request."""
    ranges = [_range_of(member) for member in members]
    start, stop = min(part.offset for part in ranges), max(part.stop for part in ranges)
    data = memoryview(objects.read_range(uri, start, stop))
    return [bytes(data[part.offset - start : part.stop - start]) for part in ranges]


TAR_ARCHIVE = ArchiveFormat(
    extension="tar", index=_index_tar, join_members=_join_members, read_members=_read_tar_members
)

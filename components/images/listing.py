"""What a source holds, before any image was opened."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from components.artifacts import digest_of
from components.config import require
from components.images.snapshot import SNAPSHOT_SCHEMA
from components.store import commits, objects

IMAGE_EXTENSIONS = ("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp")

LISTING_SCHEMA = pa.schema([SNAPSHOT_SCHEMA.field(name) for name in ("key", "label", "uri", "member", "size", "etag")])


@dataclass(frozen=True)
class Listing:
    """All images of a source."""

    table: pa.Table
    """Rows of LISTED by rising key; keys are unique, URIs can be read as they stand."""
    classes: tuple[str, ...]
    """Name of each label; none where the images have no labels."""
    files: tuple[commits.FileEntry, ...] = ()
    """Files that the source wrote into the snapshot's folder."""
    ignored: int = 0
    """Files passed over: hidden, or with an extension that is no image's."""

    def digest(self) -> str:
        """Changes when an image is added, removed, renamed or rewritten: what a new snapshot is due by."""
        columns = [self.table[name].to_pylist() for name in ("key", "label", "size", "etag")]
        return digest_of([list(self.classes), columns])


def visible_files(root: str, what: str) -> tuple[list[objects.StoredObject], int]:
    """Files below `root` that are not hidden, and how many files there are in all; ValueError when there are none.

    `what` says what images.uri must name.
    """
    files = objects.list_objects(root)
    require(
        bool(files),
        f"images.uri must name {what}, found no file under {root}: is the path right, and is anything in it?",
    )
    hidden = (".", "__MACOSX")
    shown = [file for file in files if not any(part.startswith(hidden) for part in file.path.split("/"))]
    return shown, len(files)


def files_with_extension(
    files: Sequence[objects.StoredObject], extensions: Sequence[str], root: str
) -> list[objects.StoredObject]:
    """The files that end like one of `extensions`; raises ValueError when none does, or when a name is not UTF-8."""
    chosen = [file for file in files if file.path.lower().endswith(tuple(f".{name}" for name in extensions))]
    example = f", for example {files[0].path!r}" if files else ""
    require(
        bool(chosen),
        f"images.uri must hold images ({', '.join(extensions)}), found {len(files)} files under "
        f"{root} and none of these{example}: is the path right?",
    )
    garbled = [file.path for file in chosen if any("\ud800" <= letter <= "\udfff" for letter in file.path)]
    require(
        not garbled, f"names of images must be UTF-8, got {len(garbled)} others, for example {garbled[:1]}: rename them"
    )
    return chosen

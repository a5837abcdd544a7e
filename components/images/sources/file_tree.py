"""The files below `images.uri`, and which of them a source reads."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import LISTING_SCHEMA
from components.store import objects

IMAGE_EXTENSIONS = ("bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp")
"""Extensions of files that are images, in lower case."""
HIDDEN_PREFIXES = (".", "__MACOSX")
"""Prefixes of names of files and folders that are ignored; macOS adds the second to zip files."""


class FileTree(NamedTuple):
    """The files that a source reads."""

    root: str
    """Absolute URI of `images.uri`."""
    files: list[objects.StoredObject]
    """By rising path."""
    ignored: int
    """Files passed over: hidden, or with another extension."""


def read_file_tree(config: ImagesConfig, extensions: Sequence[str], expected: str) -> FileTree:
    """Files below `config.uri` with one of `extensions`, in upper or lower case.

    `expected` completes "images.uri must name ..." in the error. Raises ValueError when there are none, or
    when the name of one is not UTF-8.
    """
    root = objects.absolute(str(config.uri))
    files = objects.list_objects(root)
    require(
        bool(files),
        f"images.uri must name {expected}, found no file under {root}: is the path right, and is anything in it?",
    )
    visible = [file for file in files if not any(part.startswith(HIDDEN_PREFIXES) for part in file.path.split("/"))]
    chosen = [file for file in visible if file.path.lower().endswith(tuple(f".{name}" for name in extensions))]
    example = f", for example {visible[0].path!r}" if visible else ""
    require(
        bool(chosen),
        f"images.uri must hold images ({', '.join(extensions)}), found {len(visible)} files under "
        f"{root} and none of these{example}: is the path right?",
    )
    # Python decodes bytes of a file name that are not UTF-8 as surrogates, which Arrow strings cannot hold.
    garbled = [file.path for file in chosen if any("\ud800" <= letter <= "\udfff" for letter in file.path)]
    require(
        not garbled, f"names of images must be UTF-8, got {len(garbled)} others, for example {garbled[:1]}: rename them"
    )
    return FileTree(root, chosen, ignored=len(files) - len(chosen))


def image_file_rows(images: Sequence[objects.StoredObject], labels: Sequence[int | None]) -> pa.Table:
    """Rows of LISTING_SCHEMA for images that are files; an image's key is its path below the root."""
    columns = [
        [file.path for file in images],
        labels,
        [file.uri for file in images],
        [None] * len(images),
        [file.size for file in images],
        [file.etag for file in images],
        [None] * len(images),
    ]
    return pa.table(columns, schema=LISTING_SCHEMA)

"""The files below `images.uri`, and which of them a source reads."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import UNNUMBERED_SCHEMA
from components.store import objects

IMAGE_EXTENSIONS = ("bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp")
"""Extensions of files that are images, in lower case."""
HIDDEN = r"(^|/)(\.|__MACOSX)"
"""Matches paths with a file or folder that is ignored; macOS adds the second kind to zip files."""
FILES_SCHEMA = pa.schema([("path", pa.string()), ("size", pa.int64()), ("etag", pa.string())])


class FileTree:
    """The files that a source reads, page by page."""

    def __init__(
        self, config: ImagesConfig, extensions: Sequence[str], expected: str, without: Sequence[str] = ()
    ) -> None:
        """Files with one of `extensions`, in upper or lower case, except those below the folders `without`.

        `expected` completes "images.uri must name ..." in the error.
        """
        self.root = objects.absolute(str(config.uri))
        self.ignored = 0
        """Files passed over so far: hidden, or with another extension."""
        self._extensions, self._expected, self._without = extensions, expected, without

    def pages(self) -> Iterator[pa.Table]:
        """Rows of FILES_SCHEMA in any order; paths are relative to the root.

        Raises ValueError, after the last page, when there are no files, or when the name of one is not UTF-8.
        """
        files = visible = 0
        example: str | None = None
        garbled: list[str] = []
        for page in objects.iter_objects(self.root, self._without):
            table = _as_table(page, garbled)
            shown = table.filter(pc.invert(pc.match_substring_regex(table["path"], HIDDEN)))
            chosen = shown.filter(has_extension(shown["path"], self._extensions))
            files += len(page.paths)
            visible += shown.num_rows
            example = min([*filter(None, [example]), *shown["path"].slice(0, 1).to_pylist()], default=None)
            self.ignored += len(page.paths) - chosen.num_rows
            if chosen.num_rows:
                yield chosen
        self._check(files, visible, example, garbled)

    def sorted_files(self) -> list[objects.StoredObject]:
        """All of them in memory by rising path: for packed files, of which there are few."""
        rows = sorted(tuple(row.values()) for page in self.pages() for row in page.to_pylist())
        return [objects.StoredObject(path, objects.join(self.root, path), size, etag) for path, size, etag in rows]

    def _check(self, files: int, visible: int, example: str | None, garbled: list[str]) -> None:
        require(
            files > 0,
            f"images.uri must name {self._expected}, found no file under {self.root}: is the path right, and is "
            "anything in it?",
        )
        garbled = [path for path in garbled if path.lower().endswith(tuple(f".{name}" for name in self._extensions))]
        require(
            not garbled,
            f"names of images must be UTF-8, got {len(garbled)} others, for example {garbled[:1]}: rename them",
        )
        shown = f", for example {example!r}" if example else ""
        require(
            self.ignored < files,
            f"images.uri must hold images ({', '.join(self._extensions)}), found {visible} files under {self.root} and "
            f"none of these{shown}: is the path right?",
        )


def has_extension(paths: pa.ChunkedArray, extensions: Sequence[str]) -> pa.ChunkedArray:
    """Which paths end with one of the extensions, in upper or lower case."""
    return pc.match_substring_regex(paths, rf"(?i)\.({'|'.join(extensions)})$")


def image_file_rows(root: str, files: pa.Table, labels: pa.Array | None = None) -> pa.Table:
    """Rows of UNNUMBERED_SCHEMA for images that are files; an image's key is its path below the root."""
    none = pa.nulls(files.num_rows, pa.string())
    uris = pc.binary_join_element_wise(root.rstrip("/"), files["path"], "/")
    columns = [files["path"], none if labels is None else labels, uris, none, files["size"], files["etag"]]
    return pa.table([*columns, pa.nulls(files.num_rows)], names=UNNUMBERED_SCHEMA.names).cast(UNNUMBERED_SCHEMA)


def _as_table(page: objects.ObjectPage, garbled: list[str]) -> pa.Table:
    """The page as rows of FILES_SCHEMA; names that are no text are left out and added to `garbled`."""
    try:
        return pa.table(list(page), schema=FILES_SCHEMA)
    except UnicodeEncodeError:
        # Python decodes bytes of a file name that are not UTF-8 as surrogates, which Arrow strings cannot hold.
        rows = list(zip(*page, strict=True))
        broken = [any("\ud800" <= letter <= "\udfff" for letter in path) for path in page.paths]
        garbled += [path for path, is_broken in zip(page.paths, broken, strict=True) if is_broken]
        whole = [row for row, is_broken in zip(rows, broken, strict=True) if not is_broken]
        return pa.Table.from_pylist([dict(zip(FILES_SCHEMA.names, row, strict=True)) for row in whole], FILES_SCHEMA)

"""The snapshot of a dataset: a fixed list of rows, so that every step sees the same images.

A row is one image or one augmented copy of it. The artifact's folder holds the rows in parts, in two kinds of files:

snapshot.json                       what pixels depend on (size, background, augmentation, rules), and the parts
rows-<hash>.parquet                 rows of one part: keys, labels, splits, and a hash of each image's content
locations-<part>-<hash>.parquet     where the images of that part lie; not part of the artifact's digest

So equal digests mean equal pixels, wherever the images lie, and parts of two snapshots are compared by their names
alone. A part begins at an image whose id is a multiple of a fixed number: an image that is added changes one part.
`read_snapshot` reads all rows into memory; `open_snapshot` reads them part by part. Written by snapshot_writer.py.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts import digest_of
from components.errors import StorageError
from components.images.config import AugmentConfig, PixelConfig
from components.images.split import HELD_OUT, TEST
from components.images.spread import class_rounds, proportional_order
from components.store import commits, objects, parquet

SNAPSHOT_FORMAT = 3
DESCRIPTION_FILE = "snapshot.json"
ROWS_PREFIX, LOCATIONS_PREFIX = "rows-", "locations-"
FILE_OF_FORMAT_2 = "snapshot.parquet"
NAME_DIGITS = 24
"""Hex digits of the hash in a part's name: 96 bits."""
CONTENT = pa.binary(16)
"""First 128 bits of SHA-256 of an image's bytes."""

SNAPSHOT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # hash of key and copy: the same in every snapshot
        pa.field("key", pa.string(), nullable=False),  # the image's name, equal in all its copies
        pa.field("label", pa.int32()),  # class number; null: not known
        pa.field("split", pa.string(), nullable=False),  # train, held_out or test
        pa.field("copy", pa.int16(), nullable=False),  # 0: the image itself
        pa.field("content", CONTENT),  # hash of the encoded image; null: it was never read
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),  # position inside the packed file that `uri` names; null: `uri` is the image
        pa.field("size", pa.int64()),  # bytes of the encoded image; null where the packed file's index lacks it
        pa.field("etag", pa.string(), nullable=False),  # changes when the file does
    ]
)
IDENTITY_COLUMNS = ("id", "key", "label", "split", "copy")
LOCATION_COLUMNS = ("uri", "member", "size", "etag")
ROWS_SCHEMA = pa.schema(
    [
        *(SNAPSHOT_SCHEMA.field(name) for name in IDENTITY_COLUMNS),
        pa.field("content", CONTENT, nullable=False),  # where `read` is false, a hash of size and etag stands in for it
        pa.field("read", pa.bool_(), nullable=False),
    ]
)
"""Columns of a part's rows: all that the digest of a snapshot depends on."""
LOCATIONS_SCHEMA = pa.schema([SNAPSHOT_SCHEMA.field(name) for name in LOCATION_COLUMNS])
"""Columns of a part's locations: one row per image, in the order of its rows with copy 0."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot with all its rows in memory."""

    table: pa.Table
    """Rows of SNAPSHOT_SCHEMA by rising key and copy; URIs are absolute."""
    classes: tuple[str, ...]
    """Name of each label."""
    pixels: PixelConfig
    """How the rows become pixels."""
    seed: int
    """Seed of the augmented copies; 0 where there are none."""
    digest: str
    """SHA-256 of the artifact: equal digests mean equal rows and pixels."""

    def split(self, name: str) -> pa.Table:
        """Rows of one split, in the snapshot's order."""
        return self.table.filter(pc.equal(self.table["split"], name))

    def originals(self, name: str) -> pa.Table:
        """Rows of one split without the augmented copies."""
        rows = self.split(name)
        return rows.filter(pc.equal(rows["copy"], 0))

    def sample(self, name: str, count: int) -> pa.Table:
        """The first `count` originals of one split in `proportional_order`: the images of every figure."""
        rows = self.originals(name)
        return rows.take(pa.array(proportional_order(label_numbers(rows), np.asarray(rows["id"]))[:count]))

    def gallery(self, name: str, count: int) -> pa.Table:
        """The first `count` rows of one split, copies included, in `class_rounds`: the images of a picture."""
        rows = self.split(name)
        return rows.take(pa.array(class_rounds(label_numbers(rows), np.asarray(rows["id"]))[:count]))

    @property
    def evaluation_split(self) -> str:
        """The split that the evaluation measures on: 'test', or 'held_out' where there are no test images."""
        return TEST if self.split(TEST).num_rows else HELD_OUT


def label_numbers(rows: pa.Table) -> np.ndarray:
    """int64 (n,); -1 where an image has no label."""
    return np.asarray(rows["label"].fill_null(-1)).astype(np.int64)


@dataclass(frozen=True)
class SnapshotPart:
    """Consecutive rows of a snapshot. Parts of equal names have equal rows, also in different snapshots."""

    name: str
    """Name of the file with its rows."""
    rows: int
    first_key: str
    last_key: str
    """Keys of its first and last image."""


@dataclass(frozen=True)
class StoredSnapshot:
    """A snapshot whose rows are still in the store."""

    folder: str
    digest: str
    """SHA-256 of the artifact."""
    rows: int
    classes: tuple[str, ...]
    """Name of each label."""
    pixels: PixelConfig
    """How the rows become pixels."""
    seed: int
    """Seed of the augmented copies; 0 where there are none."""
    preprocessing: str
    """Digest of all that pixels depend on except the files: equal digests mean that equal files give equal pixels."""
    parts: tuple[SnapshotPart, ...] = ()
    """By rising keys."""
    files: Mapping[str, commits.FileEntry] = field(default_factory=dict)
    """The manifest's entries by file name; of locations, by `locations-<name of the part>`."""

    def waves(self, rows_per_wave: int) -> Iterator[pa.Table]:
        """All rows in their order, `rows_per_wave` at a time; the last wave may be shorter."""
        pending: list[pa.Table] = []  # rows that were read and not yet yielded: fewer than a wave before each read
        for part in self.parts:
            pending.append(self.read_part(part))
            while sum(table.num_rows for table in pending) >= rows_per_wave:
                joined = pa.concat_tables(pending)
                yield joined.slice(0, rows_per_wave)
                pending = [joined.slice(rows_per_wave)] if joined.num_rows > rows_per_wave else []
        if pending:
            yield pa.concat_tables(pending)

    def gallery(self, name: str, count: int) -> pa.Table:
        """As `Snapshot.gallery`, with the rows of one part in memory."""
        chosen = SNAPSHOT_SCHEMA.empty_table()
        # No row that is not among the first `count` of some of the rows is among the first of all: of each class at
        # least as many rows come before it.
        for part in self.parts:
            rows = self.read_part(part)
            rows = pa.concat_tables([chosen, rows.filter(pc.equal(rows["split"], name))])
            chosen = rows.take(pa.array(class_rounds(label_numbers(rows), np.asarray(rows["id"]))[:count]))
        return chosen

    def read_part(self, part: SnapshotPart) -> pa.Table:
        """Rows of SNAPSHOT_SCHEMA with absolute URIs, checked against the manifest; raises StorageError."""
        if part.name == FILE_OF_FORMAT_2:
            return _with_absolute_uris(_read_format_2(self._read(part.name)), self.folder)
        rows, locations = (self._read(name) for name in (part.name, f"{LOCATIONS_PREFIX}{part.name}"))
        # The copies of an image follow it: each row's image is the number of rows with copy 0 up to it.
        image_of_row = np.cumsum(np.asarray(rows["copy"]) == 0) - 1  # (rows,)
        content = pc.if_else(rows["read"], rows["content"], pa.scalar(None, CONTENT))
        located = locations.take(pa.array(image_of_row))
        columns = [*(rows[name] for name in IDENTITY_COLUMNS), content, *(located[name] for name in LOCATION_COLUMNS)]
        return _with_absolute_uris(pa.table(columns, schema=SNAPSHOT_SCHEMA), self.folder)

    def _read(self, name: str) -> pa.Table:
        return parquet.from_bytes(commits.read_verified(self.folder, vars(self.files[name])))


# --- reading ----------------------------------------------------------------------------------------------------------


def read_snapshot(folder: str) -> Snapshot:
    """The committed snapshot in `folder`; raises FileNotFoundError without one, StorageError when it is damaged."""
    stored = open_snapshot(folder)
    tables = [stored.read_part(part) for part in stored.parts]
    table = pa.concat_tables(tables) if tables else SNAPSHOT_SCHEMA.empty_table()
    return Snapshot(table, stored.classes, stored.pixels, stored.seed, stored.digest)


def open_snapshot(folder: str) -> StoredSnapshot:
    """The committed snapshot in `folder`; raises FileNotFoundError without one, StorageError when it is damaged.

    Its parts are checked when they are read.
    """
    manifest = commits.read_manifest(folder)
    files = {_short_name(file["path"]): _file_entry(file) for file in manifest["files"]}
    if FILE_OF_FORMAT_2 in files:
        return _open_format_2(objects.absolute(folder), manifest["digest"], files)
    if DESCRIPTION_FILE not in files:
        raise StorageError(f"{folder} must hold {DESCRIPTION_FILE}, its manifest does not list one: is it a snapshot?")
    description = json.loads(commits.read_verified(folder, vars(files[DESCRIPTION_FILE])))
    if description["format"] != SNAPSHOT_FORMAT:
        raise StorageError(
            f"the snapshot in {folder} must have format {SNAPSHOT_FORMAT}, got {description['format']}: make it again"
        )
    parts = tuple(SnapshotPart(**part) for part in description["parts"])
    pixels, seed = _read_pixels(description["pixels"])
    return StoredSnapshot(
        folder=objects.absolute(folder),
        digest=manifest["digest"],
        rows=sum(part.rows for part in parts),
        classes=tuple(description["classes"]),
        pixels=pixels,
        seed=seed,
        preprocessing=digest_of(description["pixels"]),
        parts=parts,
        files=files,
    )


def _file_entry(file: Mapping[str, Any]) -> commits.FileEntry:
    return commits.FileEntry(file["path"], file["size"], file["sha256"])


def _short_name(path: str) -> str:
    """Name of a file in its folder; without the hash of their content for locations."""
    name = path.rpartition("/")[2]
    if not name.startswith(LOCATIONS_PREFIX):
        return name
    part = name.removeprefix(LOCATIONS_PREFIX).partition("-")[0]
    return f"{LOCATIONS_PREFIX}{ROWS_PREFIX}{part}.parquet"


def _read_pixels(description: Mapping[str, Any]) -> tuple[PixelConfig, int]:
    """The settings and the seed that `_describe_pixels` wrote."""
    augment = dict(description["augment"] or {"seed": 0})
    seed = augment.pop("seed")
    pixels = PixelConfig(
        image_size=description["image_size"],
        channels=description["channels"],
        upscale=description["upscale"],
        background=tuple(description["background"]),
        augment=AugmentConfig(**augment),
    )
    return pixels, seed


def _with_absolute_uris(table: pa.Table, folder: str) -> pa.Table:
    uris = table["uri"]
    is_absolute = pc.or_(pc.match_substring(uris, "://"), pc.starts_with(uris, "/"))
    joined = pc.binary_join_element_wise(folder.rstrip("/"), uris, "/")
    column = pc.if_else(is_absolute, uris, joined)
    return table.set_column(table.schema.get_field_index("uri"), SNAPSHOT_SCHEMA.field("uri"), column)


# --- snapshots of format 2 --------------------------------------------------------------------------------------------


def _open_format_2(folder: str, digest: str, files: Mapping[str, commits.FileEntry]) -> StoredSnapshot:
    """A snapshot whose rows are in one Parquet file, with everything else in its metadata."""
    with objects.open_object(objects.join(folder, files[FILE_OF_FORMAT_2].path)) as source:
        footer = pq.ParquetFile(source, pre_buffer=False)
        description, rows = json.loads(footer.schema_arrow.metadata[parquet.METADATA_KEY]), footer.metadata.num_rows
    described = {name: value for name, value in description.items() if name not in ("format", "classes")}
    pixels, seed = _read_pixels(described)
    part = SnapshotPart(FILE_OF_FORMAT_2, rows, first_key="", last_key=chr(0x10FFFF))
    classes, preprocessing = tuple(description["classes"]), digest_of(described)
    return StoredSnapshot(folder, digest, rows, classes, pixels, seed, preprocessing, (part,), files)


def _read_format_2(stored: pa.Table) -> pa.Table:
    """Rows of SNAPSHOT_SCHEMA: a hash of the content is where an image had one as its etag."""
    marked = pc.starts_with(stored["etag"], "sha256:").to_pylist()
    etags = zip(stored["etag"].to_pylist(), marked, strict=True)
    contents = [bytes.fromhex(etag.removeprefix("sha256:")) if has_hash else None for etag, has_hash in etags]
    table = stored.append_column("content", pa.array(contents, CONTENT))
    return table.select(SNAPSHOT_SCHEMA.names).cast(SNAPSHOT_SCHEMA).replace_schema_metadata(None)

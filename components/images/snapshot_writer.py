"""Writes a snapshot in parts.

writer = SnapshotWriter(folder, classes, pixels, seed, attempt=attempt)
writer.add(rows)  # any number of times, by rising key and copy
digested, beside = writer.finish()
"""

import hashlib
import json
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.images.config import AugmentConfig, PixelConfig
from components.images.decode import DECODING_RULES
from components.images.snapshot import (
    CONTENT,
    DESCRIPTION_FILE,
    LOCATIONS_PREFIX,
    LOCATIONS_SCHEMA,
    NAME_DIGITS,
    ROWS_PREFIX,
    ROWS_SCHEMA,
    SNAPSHOT_FORMAT,
    SNAPSHOT_SCHEMA,
    SnapshotPart,
    StoredSnapshot,
)
from components.store import commits, objects, parquet

ROWS_PER_PART = 1 << 15
"""Rows per part on average: a part is the unit of writing and comparing, and is held in memory."""
LARGEST_PART = 2
"""A part is at most so many times as large as the average."""


class SnapshotFiles(NamedTuple):
    """The files of a written snapshot."""

    digested: list[commits.FileEntry]
    """What its digest is made of."""
    beside: list[commits.FileEntry]
    """Where its images lie."""


def save_snapshot(
    folder: str,
    rows: pa.Table,
    classes: tuple[str, ...],
    pixels: PixelConfig,
    seed: int,
    earlier: StoredSnapshot | None = None,
) -> str:
    """Commit a snapshot of rows that are in memory; returns its digest."""
    attempt = commits.new_attempt()
    writer = SnapshotWriter(folder, classes, pixels, seed, attempt=attempt, earlier=earlier)
    writer.add(rows)
    digested, beside = writer.finish()
    return commits.commit_artifact(folder, digested, {}, beside=beside, attempt=attempt)


class SnapshotWriter:
    """Cuts rows into parts and writes each; equal rows give equal parts, whatever rows come before and after."""

    def __init__(
        self,
        folder: str,
        classes: tuple[str, ...],
        pixels: PixelConfig,
        seed: int,
        *,
        attempt: str,
        earlier: StoredSnapshot | None = None,
    ) -> None:
        """Files go into the folder of `attempt`. Those that `earlier`, another snapshot of the same store, has as well
        are copied inside the store."""
        self._folder, self._classes, self._pixels, self._seed = objects.absolute(folder), classes, pixels, seed
        stored = earlier.files.values() if earlier else ()
        self._attempt, self._earlier = attempt, {commits.name_of(file.path): file for file in stored}
        self._earlier_folder = earlier.folder if earlier else ""
        self._images_per_part = max(1, ROWS_PER_PART // pixels.augment.copies)
        self._pending: list[pa.Table] = []
        self._pending_images = 0
        self._parts: list[SnapshotPart] = []
        self._files = SnapshotFiles([], [])

    def add(self, rows: pa.Table) -> None:
        """Rows of SNAPSHOT_SCHEMA that follow those before, by rising key and copy."""
        images = np.flatnonzero(np.asarray(rows["copy"]) == 0)  # (i,): the row of each image's copy 0
        # Ids are hashes: which images begin a part does not depend on the other images.
        begins = images[np.asarray(rows["id"])[images] % self._images_per_part == 0]  # (b,)
        first = 0
        for begin in begins.tolist():
            self._add_to_part(rows.slice(first, begin - first), images[(images >= first) & (images < begin)] - first)
            self._write_part()
            first = begin
        self._add_to_part(rows.slice(first), images[images >= first] - first)

    def _add_to_part(self, rows: pa.Table, images: np.ndarray) -> None:
        """Rows of one part, with the rows `images` at which its images begin; a part that grows too large is cut."""
        while self._pending_images + len(images) > LARGEST_PART * self._images_per_part:
            room = LARGEST_PART * self._images_per_part - self._pending_images
            cut = int(images[room])
            self._pending.append(rows.slice(0, cut))
            self._write_part()
            rows, images = rows.slice(cut), images[room:] - cut
        self._pending.append(rows)
        self._pending_images += len(images)

    def finish(self) -> SnapshotFiles:
        """Write the last part and the description; returns all files that were written."""
        self._write_part()
        description = {
            "format": SNAPSHOT_FORMAT,
            "classes": list(self._classes),
            "pixels": describe_pixels(self._pixels, self._seed),
            "parts": [vars(part) for part in self._parts],
        }
        data = json.dumps(description, indent=1, sort_keys=True).encode()
        self._files.digested.append(self._store(DESCRIPTION_FILE, data))
        return self._files

    def _write_part(self) -> None:
        rows = pa.concat_tables(self._pending) if self._pending else SNAPSHOT_SCHEMA.empty_table()
        self._pending, self._pending_images = [], 0
        if not rows.num_rows:
            return
        read = pc.is_valid(rows["content"])
        content = pc.coalesce(rows["content"], _stand_ins(rows, read))
        columns = [rows[name] if name in rows.column_names else read for name in ROWS_SCHEMA.names]
        columns[ROWS_SCHEMA.get_field_index("content")] = content
        data = parquet.to_bytes(pa.table(columns, schema=ROWS_SCHEMA))
        name = f"{ROWS_PREFIX}{_content_name(data)}.parquet"
        self._files.digested.append(self._store(name, data))
        images = rows.filter(pc.equal(rows["copy"], 0)).select(LOCATIONS_SCHEMA.names)
        uris = pc.if_else(  # relative in this folder, so that a snapshot can be moved
            pc.starts_with(images["uri"], f"{self._folder}/"),
            pc.utf8_slice_codeunits(images["uri"], len(self._folder) + 1),
            images["uri"],
        )
        located = parquet.to_bytes(images.set_column(0, "uri", uris).cast(LOCATIONS_SCHEMA))
        part = name.removeprefix(ROWS_PREFIX).removesuffix(".parquet")
        location_file = f"{LOCATIONS_PREFIX}{part}-{_content_name(located)}.parquet"
        self._files.beside.append(self._store(location_file, located))
        keys = rows["key"]
        self._parts.append(SnapshotPart(name, rows.num_rows, keys[0].as_py(), keys[-1].as_py()))

    def _store(self, name: str, data: bytes) -> commits.FileEntry:
        entry = commits.file_entry(f"{self._attempt}/{name}", data)
        target = objects.join(self._folder, entry.path)
        if not self._copied(name, entry, target):
            objects.write_bytes(target, data)
        return entry

    def _copied(self, name: str, entry: commits.FileEntry, target: str) -> bool:
        """Whether the earlier snapshot has this very file, and it could be copied from there."""
        earlier = self._earlier.get(name)
        if earlier is None or (earlier.size, earlier.sha256) != (entry.size, entry.sha256):
            return False
        source = objects.join(self._earlier_folder, earlier.path)
        # On a disk both names share the bytes: a damaged file must not be passed on.
        whole = not objects.is_local(source) or commits.is_whole(self._earlier_folder, earlier)
        return whole and objects.copy_object(source, target)


def _content_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:NAME_DIGITS]


def _stand_ins(rows: pa.Table, read: pa.ChunkedArray) -> pa.Array:
    """A hash of size and etag for each image that was never read, null for the others."""
    columns = zip(read.to_pylist(), rows["size"].to_pylist(), rows["etag"].to_pylist(), strict=True)
    width = CONTENT.byte_width
    return pa.array(
        [
            None if known else hashlib.sha256(f"{size} {etag}".encode()).digest()[:width]
            for known, size, etag in columns
        ],
        CONTENT,
    )


def describe_pixels(pixels: PixelConfig, seed: int) -> dict[str, Any]:
    """Everything that pixels depend on, except the files themselves; the seed only if there are copies."""
    has_copies = pixels.augment.copies > 1
    return {
        "rules": DECODING_RULES,
        "image_size": pixels.image_size,
        "channels": pixels.channels,
        "upscale": pixels.upscale,
        "background": list(pixels.background),
        "augment": {**_describe_augment(pixels.augment), "seed": seed} if has_copies else None,
    }


def _describe_augment(augment: AugmentConfig) -> dict[str, Any]:
    """Settings of the copies; `flip` only where it is on, so that equal pixels keep the digest they had before it."""
    settings = asdict(augment)
    if not augment.flip:
        del settings["flip"]
    return settings

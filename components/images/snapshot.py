"""The snapshot of a dataset: a fixed list of rows, so that every step sees the same images.

A row is one image or one augmented copy of it. The table is stored as snapshot.parquet in the artifact's folder;
everything else that pixels depend on (size, background, augmentation, version of the decoding rules) is in the table's
metadata, so that equal digests mean equal pixels. URIs below the artifact's own folder are stored relative to it, so
that a snapshot keeps its digest when it is moved. `read_snapshot` reads all rows into memory; `open_snapshot` reads
them in waves, for snapshots that may be larger than memory.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts import digest_of
from components.errors import StorageError
from components.images.config import AugmentConfig, PixelConfig
from components.images.decode import DECODING_RULES
from components.images.split import HELD_OUT, TEST
from components.images.spread import class_rounds, proportional_order
from components.store import commits, objects, parquet

SNAPSHOT_FORMAT = 2
SNAPSHOT_FILE = "snapshot.parquet"
ROWS_PER_GROUP = 1 << 16
"""Rows per row group of the file: reading in waves holds at most this many rows beyond the wave itself."""

SNAPSHOT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # hash of key and copy: the same in every snapshot
        pa.field("key", pa.string(), nullable=False),  # the image's name, equal in all its copies
        pa.field("label", pa.int32()),  # class number; null: not known
        pa.field("split", pa.string(), nullable=False),  # train, held_out or test
        pa.field("copy", pa.int16(), nullable=False),  # 0: the image itself
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),  # position inside the packed file that `uri` names; null: `uri` is the image
        pa.field("size", pa.int64()),  # bytes of the encoded image; null where the packed file's index lacks it
        pa.field("etag", pa.string(), nullable=False),  # changes when the content does
    ]
)


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
class StoredSnapshot:
    """A snapshot whose rows are still in the store."""

    folder: str
    uri: str
    """Of its table."""
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

    def waves(self, rows_per_wave: int) -> Iterator[pa.Table]:
        """All rows in their order, `rows_per_wave` at a time; the last wave may be shorter."""
        folder = objects.absolute(self.folder)
        pending: list[pa.Table] = []  # rows that were read and not yet yielded: fewer than a wave before each read
        with _open_table(self.uri) as file:
            for batch in file.iter_batches(min(rows_per_wave, ROWS_PER_GROUP), use_threads=False):
                rows = _with_absolute_uris(pa.Table.from_batches([batch]), folder)
                pending.append(rows.replace_schema_metadata(None))
                while sum(table.num_rows for table in pending) >= rows_per_wave:
                    joined = pa.concat_tables(pending)
                    yield joined.slice(0, rows_per_wave)
                    pending = [joined.slice(rows_per_wave)] if joined.num_rows > rows_per_wave else []
        if pending:
            yield pa.concat_tables(pending)


# --- writing ----------------------------------------------------------------------------------------------------------


def snapshot_to_parquet(table: pa.Table, classes: tuple[str, ...], pixels: PixelConfig, seed: int) -> bytes:
    """The stored form of a snapshot; equal content gives equal bytes."""
    description = {"format": SNAPSHOT_FORMAT, "classes": list(classes), **_describe_pixels(pixels, seed)}
    metadata = {parquet.METADATA_KEY: json.dumps(description, sort_keys=True).encode()}
    return parquet.to_bytes(
        table.cast(SNAPSHOT_SCHEMA).replace_schema_metadata(metadata), row_group_size=ROWS_PER_GROUP
    )


def relative_uri(uri: str, folder: str) -> str:
    """`uri` as it is stored in the snapshot of `folder`: relative for files in that folder, else unchanged."""
    inside = objects.absolute(folder).rstrip("/") + "/"
    return uri.removeprefix(inside)


def _describe_pixels(pixels: PixelConfig, seed: int) -> dict[str, Any]:
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


# --- reading ----------------------------------------------------------------------------------------------------------


def read_snapshot(folder: str) -> Snapshot:
    """The committed snapshot in `folder`; raises FileNotFoundError without one, StorageError when it is damaged."""
    manifest, entry = _manifest_and_entry(folder)
    stored = parquet.from_bytes(commits.read_verified(folder, entry))
    description = _description(stored.schema, folder)
    pixels, seed = _read_pixels(description)
    table = _with_absolute_uris(stored, objects.absolute(folder)).replace_schema_metadata(None)
    return Snapshot(table, tuple(description["classes"]), pixels, seed, manifest["digest"])


def open_snapshot(folder: str) -> StoredSnapshot:
    """The committed snapshot in `folder`, checked against its manifest; raises as `read_snapshot` does."""
    manifest, entry = _manifest_and_entry(folder)
    commits.verify_file(folder, entry)
    with _open_table(objects.join(folder, entry["path"])) as file:
        description, rows = _description(file.schema_arrow, folder), file.metadata.num_rows
    pixels, seed = _read_pixels(description)
    preprocessing = {name: value for name, value in description.items() if name not in ("format", "classes")}
    return StoredSnapshot(
        folder=folder,
        uri=objects.join(folder, entry["path"]),
        digest=manifest["digest"],
        rows=rows,
        classes=tuple(description["classes"]),
        pixels=pixels,
        seed=seed,
        preprocessing=digest_of(preprocessing),
    )


@contextlib.contextmanager
def _open_table(uri: str) -> Iterator[pq.ParquetFile]:
    with (
        objects.open_object(uri) as source,
        # No buffering ahead: a wave must not read the row groups of later waves.
        pq.ParquetFile(source, pre_buffer=False) as file,
    ):
        yield file


def _manifest_and_entry(folder: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The manifest of a snapshot's folder and its entry for SNAPSHOT_FILE."""
    manifest = commits.read_manifest(folder)
    entry = next((file for file in manifest["files"] if commits.name_of(file["path"]) == SNAPSHOT_FILE), None)
    if entry is None:
        raise StorageError(f"{folder} must hold {SNAPSHOT_FILE}, its manifest does not list one: is it a snapshot?")
    return manifest, entry


def _description(schema: pa.Schema, folder: str) -> dict[str, Any]:
    """What `snapshot_to_parquet` wrote into the metadata."""
    description = json.loads(schema.metadata[parquet.METADATA_KEY])
    if description["format"] != SNAPSHOT_FORMAT:
        raise StorageError(
            f"the snapshot in {folder} must have format {SNAPSHOT_FORMAT}, got {description['format']}: make it again"
        )
    return description


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
    stored = table["uri"].to_pylist()
    # Rows of packed images repeat a few URIs: each is resolved once.
    absolute = {uri: uri if "://" in uri or uri.startswith("/") else objects.join(folder, uri) for uri in set(stored)}
    column = pa.array([absolute[uri] for uri in stored], pa.string())
    return table.set_column(table.schema.get_field_index("uri"), SNAPSHOT_SCHEMA.field("uri"), column)

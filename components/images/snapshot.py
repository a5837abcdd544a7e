"""The snapshot of a dataset: which rows there are, fixed once, so that every step sees the same images.

A row is one image or one augmented copy of it. The table is stored as snapshot.parquet in the artifact's folder; what
else the pixels depend on (size, background, augmentation, the version of the decoding rules) is in its metadata, so
that equal digests mean equal pixels. URIs below the artifact's own folder are stored relative to it: a snapshot that is
moved keeps its digest. A snapshot is read whole (`read_snapshot`) or, where it may be larger than memory, a wave of
rows at a time (`open_snapshot`).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.artifacts import digest_of
from components.errors import StorageError
from components.images.config import AugmentConfig, ImagesConfig
from components.images.decode import DECODING_RULES
from components.images.split import HELD_OUT, TRAIN
from components.store import commits, objects, parquet

SNAPSHOT_FORMAT = 2
SNAPSHOT_FILE = "snapshot.parquet"
METADATA_KEY = b"vqvae2"
ROWS_PER_GROUP = 1 << 16
"""Rows that are read at a time: what a reader of waves holds beside its wave."""

SNAPSHOT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # hash of key and copy: the same in every snapshot
        pa.field("key", pa.string(), nullable=False),  # the image's name, equal in all its copies
        pa.field("label", pa.int32()),
        pa.field("split", pa.string(), nullable=False),  # train or held_out
        pa.field("copy", pa.int16(), nullable=False),  # 0: the image itself
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),  # place inside the packed file that `uri` names; null: `uri` is the image
        pa.field("size", pa.int64()),  # bytes of the encoded image; null where its packed file does not tell
        pa.field("etag", pa.string(), nullable=False),  # changes when the content does
    ]
)


class SnapshotCounts(NamedTuple):
    """What a snapshot holds."""

    images: int
    rows: int
    train_images: int
    train_rows: int
    held_out: int


@dataclass(frozen=True)
class Snapshot:
    """A dataset, fixed."""

    table: pa.Table
    """Rows of SCHEMA by rising key and copy; URIs can be read as they stand."""
    classes: tuple[str, ...]
    """Name of each label."""
    image_size: int
    """Side of the decoded images."""
    channels: int
    """3 for RGB, 1 for grayscale."""
    digest: str
    """SHA-256 of the artifact: names rows and pixels."""

    def split(self, name: str) -> pa.Table:
        """Rows of one split, in the snapshot's order."""
        return self.table.filter(pc.equal(self.table["split"], name))

    def originals(self, name: str) -> pa.Table:
        """Rows of one split without the augmented copies."""
        rows = self.split(name)
        return rows.filter(pc.equal(rows["copy"], 0))

    def counts(self) -> SnapshotCounts:
        """Images and rows in all and by split."""
        train, held_out = self.split(TRAIN).num_rows, self.split(HELD_OUT).num_rows
        train_images = self.originals(TRAIN).num_rows
        return SnapshotCounts(train_images + held_out, self.table.num_rows, train_images, train, held_out)


def snapshot_to_parquet(table: pa.Table, classes: tuple[str, ...], config: ImagesConfig, seed: int) -> bytes:
    """The stored form of a snapshot; equal content gives equal bytes."""
    facts = {"format": SNAPSHOT_FORMAT, "classes": list(classes), **_pixels(config, seed)}
    metadata = {METADATA_KEY: json.dumps(facts, sort_keys=True).encode()}
    return parquet.to_bytes(
        table.cast(SNAPSHOT_SCHEMA).replace_schema_metadata(metadata), row_group_size=ROWS_PER_GROUP
    )


def _pixels(config: ImagesConfig, seed: int) -> dict[str, Any]:
    """Everything but the files that the pixels of a row depend on."""
    augmented = config.augment.copies > 1
    return {
        "rules": DECODING_RULES,
        "image_size": config.image_size,
        "channels": config.channels,
        "upscale": config.upscale,
        "background": list(config.background),
        "augment": {**asdict(config.augment), "seed": seed} if augmented else None,
    }


def read_snapshot(folder: str) -> Snapshot:
    """The committed snapshot in `folder`; raises FileNotFoundError without one, StorageError when it is damaged."""
    manifest, line = _listed(folder)
    table = parquet.from_bytes(commits.read_verified(folder, line))
    facts = _facts(table.schema, folder)
    table = _located(table, objects.absolute(folder)).replace_schema_metadata(None)
    return Snapshot(table, tuple(facts["classes"]), facts["image_size"], facts["channels"], manifest["digest"])


@dataclass(frozen=True)
class StoredSnapshot:
    """A committed snapshot whose rows are still on disk."""

    folder: str
    digest: str
    """SHA-256 of the artifact."""
    rows: int
    classes: tuple[str, ...]
    settings: ImagesConfig
    """How its rows become pixels; where its images come from is in the rows."""
    seed: int
    """Of its augmented copies."""
    preprocessing: str
    """Digest of all that pixels depend on beside the files: equal digests, equal pixels of equal images."""

    def waves(self, rows: int) -> Iterator[pa.Table]:
        """All rows in their order, `rows` at a time; the last wave may be shorter."""
        folder = objects.absolute(self.folder)
        held: list[pa.Table] = []
        with (
            objects.open_object(objects.join(self.folder, SNAPSHOT_FILE)) as source,
            pq.ParquetFile(source, pre_buffer=False) as file,
        ):
            for batch in file.iter_batches(min(rows, ROWS_PER_GROUP), use_threads=False):
                held.append(_located(pa.Table.from_batches([batch]), folder).replace_schema_metadata(None))
                while sum(table.num_rows for table in held) >= rows:
                    joined = pa.concat_tables(held)
                    yield joined.slice(0, rows)
                    held = [joined.slice(rows)] if joined.num_rows > rows else []
        if held:
            yield pa.concat_tables(held)


def open_snapshot(folder: str) -> StoredSnapshot:
    """The committed snapshot in `folder`, checked against its manifest; raises as read_snapshot does."""
    manifest, line = _listed(folder)
    commits.verify_file(folder, line)
    with (
        objects.open_object(objects.join(folder, SNAPSHOT_FILE)) as source,
        pq.ParquetFile(source, pre_buffer=False) as file,
    ):
        facts, rows = _facts(file.schema_arrow, folder), file.metadata.num_rows
    augment = dict(facts["augment"] or {"seed": 0})
    seed = augment.pop("seed")
    settings = ImagesConfig(
        source="files",
        uri=folder,
        image_size=facts["image_size"],
        channels=facts["channels"],
        upscale=facts["upscale"],
        background=tuple(facts["background"]),
        augment=AugmentConfig(**augment),
    )
    pixels = {name: value for name, value in facts.items() if name not in ("format", "classes")}
    return StoredSnapshot(folder, manifest["digest"], rows, tuple(facts["classes"]), settings, seed, digest_of(pixels))


def _listed(folder: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The manifest of a snapshot's folder and its line about the snapshot."""
    manifest = commits.read_manifest(folder)
    line = next((file for file in manifest["files"] if file["path"] == SNAPSHOT_FILE), None)
    if line is None:
        raise StorageError(f"{folder} must hold {SNAPSHOT_FILE}, its manifest does not list one: is it a snapshot?")
    return manifest, line


def _facts(schema: pa.Schema, folder: str) -> dict[str, Any]:
    facts = json.loads(schema.metadata[METADATA_KEY])
    if facts["format"] != SNAPSHOT_FORMAT:
        found = facts["format"]
        raise StorageError(f"the snapshot in {folder} must have format {SNAPSHOT_FORMAT}, got {found}: make it again")
    return facts


def relative_uri(uri: str, folder: str) -> str:
    """`uri` as it is stored in the snapshot of `folder`."""
    inside = objects.absolute(folder).rstrip("/") + "/"
    return uri.removeprefix(inside)


def _located(table: pa.Table, folder: str) -> pa.Table:
    known: dict[str, str] = {}
    stored = table["uri"].to_pylist()
    for uri in set(stored):
        known[uri] = uri if "://" in uri or uri.startswith("/") else objects.join(folder, uri)
    column = pa.array([known[uri] for uri in stored], pa.string())
    return table.set_column(table.schema.get_field_index("uri"), SNAPSHOT_SCHEMA.field("uri"), column)

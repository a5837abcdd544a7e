"""The snapshot of a dataset: which rows there are, fixed once, so that every step sees the same images.

A row is one image or one augmented copy of it. The table is stored as snapshot.parquet in the artifact's folder; what
else the pixels depend on (size, background, augmentation, the version of the decoding rules) is in its metadata, so
that equal digests mean equal pixels. URIs below the artifact's own folder are stored relative to it: a snapshot that is
moved keeps its digest.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from components import parquet, storage
from components.images.config import ImagesConfig
from components.images.decode import RULES
from components.images.split import HELD_OUT, TRAIN

FORMAT = 1
SNAPSHOT = "snapshot.parquet"
METADATA = b"vqvae2"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # place of the image among the sorted keys * copies + copy
        pa.field("key", pa.string(), nullable=False),  # the image's name, equal in all its copies
        pa.field("label", pa.int32()),
        pa.field("split", pa.string(), nullable=False),  # train or held_out
        pa.field("copy", pa.int16(), nullable=False),  # 0: the image itself
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),  # key inside the packed file that `uri` names; null: `uri` is the image
        pa.field("size", pa.int64(), nullable=False),  # bytes of the encoded image
        pa.field("etag", pa.string(), nullable=False),  # changes when the content does
    ]
)


class Counts(NamedTuple):
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
    """Rows of SCHEMA by rising id; URIs can be read as they stand."""
    classes: tuple[str, ...]
    """Name of each label."""
    image_size: int
    """Side of the decoded images."""
    channels: int
    """3 for RGB, 1 for grayscale."""
    digest: str
    """SHA-256 of the artifact: names rows and pixels."""

    def split(self, name: str) -> pa.Table:
        """Rows of one split, by rising id."""
        return self.table.filter(pc.equal(self.table["split"], name))

    def originals(self, name: str) -> pa.Table:
        """Rows of one split without the augmented copies."""
        rows = self.split(name)
        return rows.filter(pc.equal(rows["copy"], 0))

    def counts(self) -> Counts:
        """Images and rows in all and by split."""
        train, held_out = self.split(TRAIN).num_rows, self.split(HELD_OUT).num_rows
        train_images = self.originals(TRAIN).num_rows
        return Counts(train_images + held_out, self.table.num_rows, train_images, train, held_out)


def to_parquet(table: pa.Table, classes: tuple[str, ...], config: ImagesConfig, seed: int) -> bytes:
    """The stored form of a snapshot; equal content gives equal bytes."""
    facts = {"format": FORMAT, "classes": list(classes), **_pixels(config, seed)}
    metadata = {METADATA: json.dumps(facts, sort_keys=True).encode()}
    return parquet.to_bytes(table.cast(SCHEMA).replace_schema_metadata(metadata))


def _pixels(config: ImagesConfig, seed: int) -> dict[str, Any]:
    """Everything but the files that the pixels of a row depend on."""
    augmented = config.augment.copies > 1
    return {
        "rules": RULES,
        "image_size": config.image_size,
        "channels": config.channels,
        "upscale": config.upscale,
        "background": list(config.background),
        "augment": {**asdict(config.augment), "seed": seed} if augmented else None,
    }


def read_snapshot(folder: str) -> Snapshot:
    """The committed snapshot in `folder`; raises FileNotFoundError without one, StorageError when it is damaged."""
    manifest = storage.read_manifest(folder)
    line = next((file for file in manifest["files"] if file["path"] == SNAPSHOT), None)
    if line is None:
        raise storage.StorageError(f"{folder} must hold {SNAPSHOT}, its manifest does not list one: is it a snapshot?")
    table = parquet.from_bytes(storage.read_listed(folder, line))
    facts = json.loads(table.schema.metadata[METADATA])
    if facts["format"] != FORMAT:
        found = facts["format"]
        raise storage.StorageError(f"the snapshot in {folder} must have format {FORMAT}, got {found}: make it again")
    table = _located(table, storage.absolute(folder)).replace_schema_metadata(None)
    return Snapshot(table, tuple(facts["classes"]), facts["image_size"], facts["channels"], manifest["digest"])


def relative(uri: str, folder: str) -> str:
    """`uri` as it is stored in the snapshot of `folder`."""
    inside = storage.absolute(folder).rstrip("/") + "/"
    return uri.removeprefix(inside)


def _located(table: pa.Table, folder: str) -> pa.Table:
    known: dict[str, str] = {}
    stored = table["uri"].to_pylist()
    for uri in set(stored):
        known[uri] = uri if "://" in uri or uri.startswith("/") else storage.join(folder, uri)
    column = pa.array([known[uri] for uri in stored], pa.string())
    return table.set_column(table.schema.get_field_index("uri"), SCHEMA.field("uri"), column)

"""From a listing and its rejects to a committed snapshot.

listing = list_images(config, folder)
rejects = inspect_rows(listing.table, config)      # slice by slice, side by side: the step's business
digest = commit_snapshot(folder, listing, rejects, config, seed=seed)
snapshot = read_snapshot(folder)
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.artifacts import Fact
from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.rejects import REJECTS_FILE, Reject, check_reject_fraction, rejects_table
from components.images.snapshot import SNAPSHOT_FILE, SNAPSHOT_SCHEMA, SnapshotCounts, relative_uri, snapshot_to_parquet
from components.images.split import HELD_OUT, TRAIN, check_splits, split_of
from components.store import commits, objects, parquet


class SnapshotContents(NamedTuple):
    """A snapshot that is not written yet."""

    contents: dict[str, bytes]
    """Files by path relative to the artifact's folder."""
    facts: dict[str, Fact]
    """Figures for a reader and the next step."""


def build_snapshot(
    folder: str, listing: Listing, rejects: Sequence[Reject], config: ImagesConfig, *, seed: int
) -> SnapshotContents:
    """Leave out the rejects, then give ids, splits and copies; raises TooManyRejects."""
    check_reject_fraction(rejects, listing.table.num_rows, config.max_rejects)
    rejected = pa.array([reject.key for reject in rejects], pa.string())
    kept = listing.table.filter(pc.invert(pc.is_in(listing.table["key"], rejected)))
    splits = np.array([split_of(key, config.held_out) for key in kept["key"].to_pylist()], dtype=object)
    table = _rows(kept, splits, config.augment.copies, folder)
    contents = {
        SNAPSHOT_FILE: snapshot_to_parquet(table, listing.classes, config, seed),
        REJECTS_FILE: parquet.to_bytes(rejects_table(rejects)),
    }
    held_out = int((splits == HELD_OUT).sum())
    train = len(splits) - held_out
    counts = SnapshotCounts(len(splits), table.num_rows, train, train * config.augment.copies, held_out)
    facts: dict[str, Fact] = {
        **counts._asdict(),
        "classes": len(listing.classes),
        "rejects": len(rejects),
        "ignored_files": listing.ignored,
        "image_size": config.image_size,
        "channels": config.channels,
    }
    return SnapshotContents(contents, facts)


def commit_snapshot(
    folder: str, listing: Listing, rejects: Sequence[Reject], config: ImagesConfig, *, seed: int
) -> str:
    """Write the snapshot and its manifest, last; returns the artifact's digest."""
    files = build_snapshot(folder, listing, rejects, config, seed=seed)
    for path, data in files.contents.items():
        objects.write_bytes(objects.join(folder, path), data)
    entries = [commits.file_entry(path, data) for path, data in files.contents.items()]
    return commits.commit_artifact(folder, [*listing.files, *entries], files.facts)


def check_trainable(listing: Listing, rejects: Sequence[Reject], config: ImagesConfig) -> None:
    """Raise ValueError unless what is left has labels, both splits, and something of each class to train on."""
    rejected = {reject.key for reject in rejects}
    rows = zip(listing.table["key"].to_pylist(), listing.table["label"].to_pylist(), strict=True)
    kept = [(label, split_of(key, config.held_out)) for key, label in rows if key not in rejected]
    check_splits([split for _, split in kept], config.held_out)
    unlabelled = sum(label is None for label, _ in kept)
    require(
        unlabelled == 0,
        f"every image must have a label to fit priors and classifiers to, {unlabelled} of {len(kept)} have none: "
        "complete images.labels, or give all one label; `python -m pipeline encode` needs none",
    )
    counts = np.bincount([label for label, split in kept if split == TRAIN], minlength=len(listing.classes))
    empty = [name for name, count in zip(listing.classes, counts, strict=True) if count == 0]
    require(
        not empty,
        f"every class must keep at least one usable image to train on, got none for {len(empty)} of "
        f"{len(listing.classes)}, for example {empty[:3]}: add images of these classes or take them out",
    )


def _rows(kept: pa.Table, splits: np.ndarray, copies: int, folder: str) -> pa.Table:
    """Rows of SCHEMA: every image, and after each training image its augmented copies."""
    repeats = np.where(splits == TRAIN, copies, 1)
    image = np.repeat(np.arange(len(splits)), repeats)
    first = np.cumsum(repeats) - repeats
    copy = np.arange(len(image)) - first[image]
    rows = kept.take(pa.array(image))
    columns = {
        **{name: rows[name] for name in rows.column_names},
        "id": pa.array(row_ids(rows["key"].to_pylist(), copy)),
        "split": pa.array(splits[image], pa.string()),
        "copy": pa.array(copy, pa.int16()),
        "uri": pa.array([relative_uri(uri, folder) for uri in rows["uri"].to_pylist()], pa.string()),
    }
    return pa.table([columns[name] for name in SNAPSHOT_SCHEMA.names], schema=SNAPSHOT_SCHEMA)


def row_ids(keys: Sequence[str], copies: np.ndarray) -> np.ndarray:
    """Unique int64 of each (key, copy) from their hash alone: an image keeps its id when others come and go.

    Where two hashes meet (one time in twenty at a billion rows) the later key takes the next number that is free.
    """
    hashes = (hashlib.sha256(f"{copy} {key}".encode()).digest()[:8] for key, copy in zip(keys, copies, strict=True))
    wanted = (np.frombuffer(b"".join(hashes), ">u8") >> 2).astype(np.int64)
    order = np.argsort(wanted, kind="stable")  # rows come by rising key
    steps = np.arange(len(wanted))
    ids = np.empty_like(wanted)
    ids[order] = np.maximum.accumulate(wanted[order] - steps) + steps
    return ids

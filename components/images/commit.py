"""From a listing and its rejects to a committed snapshot.

listing = list_images(config, folder)
rejects = inspect_rows(listing.table, config)  # the step inspects slices of the table side by side
digest = commit_snapshot(folder, listing, rejects, config, seed=seed)
snapshot = read_snapshot(folder)
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.config import require
from components.images.config import ImagesConfig
from components.images.facts import SnapshotFacts
from components.images.listing import Listing
from components.images.rejects import REJECTS_FILE, Reject, check_reject_fraction, rejects_table
from components.images.snapshot import SNAPSHOT_SCHEMA
from components.images.snapshot_writer import SnapshotWriter
from components.images.split import HELD_OUT, TEST, TRAIN, assign_splits, check_splits
from components.store import commits, objects, parquet


def commit_snapshot(
    folder: str, listing: Listing, rejects: Sequence[Reject], config: ImagesConfig, *, seed: int
) -> str:
    """Leave out the rejects, assign ids, splits and copies, write the parts and, last, the manifest.

    Returns the artifact's digest; raises TooManyRejects.
    """
    check_reject_fraction(rejects, listing.table.num_rows, config.max_rejects)
    usable = _usable_rows(listing, rejects)
    splits = np.array(_splits(usable, config), dtype=object)  # (images,)
    writer = SnapshotWriter(folder, listing.classes, config, seed)
    rows = _snapshot_rows(usable, splits, config.augment.copies)
    writer.add(rows)
    digested, beside = writer.finish()
    reject_table = parquet.to_bytes(rejects_table(rejects))
    objects.write_bytes(objects.join(folder, REJECTS_FILE), reject_table)
    train_images = int((splits == TRAIN).sum())
    facts = SnapshotFacts(
        images=len(splits),
        rows=rows.num_rows,
        train_images=train_images,
        train_rows=train_images * config.augment.copies,
        held_out=int((splits == HELD_OUT).sum()),
        test=int((splits == TEST).sum()),
        classes=len(listing.classes),
        rejects=len(rejects),
        ignored_files=listing.ignored,
        image_size=config.image_size,
        channels=config.channels,
    )
    beside.append(commits.file_entry(REJECTS_FILE, reject_table))
    return commits.commit_artifact(folder, [*listing.files, *digested], facts.record(), beside=beside)


def check_trainable(listing: Listing, rejects: Sequence[Reject], config: ImagesConfig) -> None:
    """Raise ValueError unless all usable images have a label or none has, no split is empty, and no class lacks
    training images."""
    table = _usable_rows(listing, rejects)
    splits = _splits(table, config)
    check_splits(splits, config.held_out, config.test)
    if not listing.classes:
        return  # a model without classes
    usable = list(zip(table["label"].to_pylist(), splits, strict=True))
    _check_labelled([label for label, _ in usable], config)
    counts = np.bincount([label for label, split in usable if split == TRAIN], minlength=len(listing.classes))
    empty = [name for name, count in zip(listing.classes, counts, strict=True) if count == 0]
    require(
        not empty,
        f"every class must keep at least one usable image to train on, got none for {len(empty)} of "
        f"{len(listing.classes)}, for example {empty[:3]}: add images of these classes or remove them",
    )


def _usable_rows(listing: Listing, rejects: Sequence[Reject]) -> pa.Table:
    """Rows of the listing without the rejects."""
    rejected_keys = pa.array([reject.key for reject in rejects], pa.string())
    return listing.table.filter(pc.invert(pc.is_in(listing.table["key"], rejected_keys)))


def _splits(usable: pa.Table, config: ImagesConfig) -> list[str]:
    return assign_splits(usable["key"].to_pylist(), usable["label"].to_pylist(), config.held_out, config.test)


def _check_labelled(labels: Sequence[int | None], config: ImagesConfig) -> None:
    unlabelled = labels.count(None)
    no_labels = {
        "files": "leave images.labels out",
        "webdataset": "set images.label_column to a field that no .json file has, and leave the .cls files out",
        "parquet": "set images.label_column to a column that the tables lack",
    }
    without = f", or, for a model without classes, {no_labels[config.source]}" if config.source in no_labels else ""
    require(
        unlabelled == 0,
        f"either every image must have a label, or none; got {unlabelled} of {len(labels)} without one: complete the "
        f"labels{without} (`python -m pipeline encode` takes images with and without labels together)",
    )


def _snapshot_rows(usable: pa.Table, splits: np.ndarray, copies: int) -> pa.Table:
    """Rows of SNAPSHOT_SCHEMA: every image, and after each training image its augmented copies."""
    rows_per_image = np.where(splits == TRAIN, copies, 1)  # (images,)
    image_of_row = np.repeat(np.arange(len(splits)), rows_per_image)  # (rows,)
    first_row = np.cumsum(rows_per_image) - rows_per_image  # (images,): the row of copy 0
    copy_of_row = np.arange(len(image_of_row)) - first_row[image_of_row]  # (rows,)
    rows = usable.take(pa.array(image_of_row))
    columns = {  # (rows,) each
        **{name: rows[name] for name in rows.column_names},
        "id": pa.array(row_ids(rows["key"].to_pylist(), copy_of_row)),
        "split": pa.array(splits[image_of_row], pa.string()),
        "copy": pa.array(copy_of_row, pa.int16()),
    }
    return pa.table([columns[name] for name in SNAPSHOT_SCHEMA.names], schema=SNAPSHOT_SCHEMA)


def row_ids(keys: Sequence[str], copies: np.ndarray) -> np.ndarray:
    """Unique id, int64 (rows,), of each (key, copy), from its hash: an image keeps it when others are added or removed.

    Rows are sorted by key. Where the hashes of two rows collide (a billion rows have one chance in ten of that), the
    row with the later key takes the next free number.
    """
    hashes = (hashlib.sha256(f"{copy} {key}".encode()).digest()[:8] for key, copy in zip(keys, copies, strict=True))
    # 62 bits: the sign stays positive, and adding a few to resolve collisions cannot overflow.
    wanted = (np.frombuffer(b"".join(hashes), ">u8") >> 2).astype(np.int64)  # (rows,)
    # In the order of the hashes, with rows of equal hash by key (the sort is stable), each id must be the row's own
    # hash or, if that is taken, one more than the id before: id[i] = max(wanted[i], id[i-1] + 1). With steps i
    # subtracted this is a running maximum: id[i] - i = max(wanted[i] - i, id[i-1] - (i-1)). So ids rise strictly,
    # hence are unique, and a row whose hash is not reached by the row before keeps its hash.
    order = np.argsort(wanted, kind="stable")  # (rows,)
    steps = np.arange(len(wanted))  # (rows,)
    ids = np.empty_like(wanted)  # (rows,)
    ids[order] = np.maximum.accumulate(wanted[order] - steps) + steps
    return ids

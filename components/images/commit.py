"""From a listing and its rejects to a committed snapshot, in memory that does not grow with the number of images.

listing = list_images(config, folder)
usable, rejects = inspect_listing(listing, config, ...)  # or the listing itself, where nothing is inspected
digest = commit_snapshot(folder, usable, rejects, config, seed=seed)
snapshot = read_snapshot(folder)
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.config import require
from components.images.config import ImagesConfig
from components.images.facts import SnapshotFacts
from components.images.listing import Listing
from components.images.rejects import REJECTS_FILE, Reject, rejects_table
from components.images.snapshot import SNAPSHOT_SCHEMA, StoredSnapshot
from components.images.snapshot_writer import SnapshotFiles, SnapshotWriter
from components.images.split import HELD_OUT, SPLITS, TEST, TRAIN, SplitPlan, plan_splits, positions_of
from components.store import commits, parquet
from components.store.spool import ExternalSort

IDS_PER_RUN = 1 << 22
"""Ids sorted in memory at a time."""


def plan_listing(listing: Listing, rejects: Sequence[Reject], config: ImagesConfig) -> SplitPlan:
    """The splits of the usable images of a listing; reads all rows."""
    tables = partial(_usable_rows, listing, rejects)
    return plan_splits(tables, len(listing.classes), config.held_out, config.test)


def check_trainable(plan: SplitPlan, classes: Sequence[str], config: ImagesConfig) -> None:
    """Raise ValueError unless all usable images have a label or none has, no split is empty, and no class lacks
    training images."""
    plan.check()
    if not classes:
        return  # a model without classes
    _check_labelled(plan, config)
    trained = plan.counts[:-1, SPLITS.index(TRAIN)].tolist()
    empty = [name for name, count in zip(classes, trained, strict=True) if count == 0]
    require(
        not empty,
        f"every class must keep at least one usable image to train on, got none for {len(empty)} of "
        f"{len(classes)}, for example {empty[:3]}: add images of these classes or remove them",
    )


def commit_snapshot(
    folder: str,
    listing: Listing,
    rejects: Sequence[Reject],
    config: ImagesConfig,
    *,
    seed: int,
    plan: SplitPlan | None = None,
    earlier: StoredSnapshot | None = None,
    attempt: str = "",
    base: int | None = None,
) -> str:
    """Leave out the rejects, assign ids, splits and copies, write the parts and, last, the manifest.

    `plan` is that of `plan_listing`; files that the snapshot `earlier` has are copied inside the store; `attempt` and
    `base` as in `commits.save_artifact`. Returns the artifact's digest.
    """
    plan, attempt = plan or plan_listing(listing, rejects, config), attempt or commits.new_attempt()
    writer = partial(SnapshotWriter, folder, listing.classes, config, seed, earlier=earlier, attempt=attempt)
    files = _write_parts(writer, partial(_usable_rows, listing, rejects), plan, config.augment.copies)
    rejected = commits.store_file(folder, f"{attempt}/{REJECTS_FILE}", parquet.to_bytes(rejects_table(rejects)))
    images, train_images = int(plan.counts.sum()), plan.images(TRAIN)
    facts = SnapshotFacts(
        images=images,
        rows=images + train_images * (config.augment.copies - 1),
        train_images=train_images,
        train_rows=train_images * config.augment.copies,
        held_out=plan.images(HELD_OUT),
        test=plan.images(TEST),
        classes=len(listing.classes),
        rejects=len(rejects),
        ignored_files=listing.ignored,
        image_size=config.image_size,
        channels=config.channels,
    )
    digested, beside = [*listing.files, *files.digested], [*files.beside, rejected]
    return commits.commit_artifact(folder, digested, facts.record(), beside=beside, attempt=attempt, base=base)


def _check_labelled(plan: SplitPlan, config: ImagesConfig) -> None:
    unlabelled = int(plan.counts[-1].sum())
    no_labels = {
        "files": "leave images.labels out",
        "webdataset": "set images.label_column to a field that no .json file has, and leave the .cls files out",
        "parquet": "set images.label_column to a column that the tables lack",
        "inventory": "set images.label_column to a column that the inventory lacks",
    }
    without = f", or, for a model without classes, {no_labels[config.source]}" if config.source in no_labels else ""
    require(
        unlabelled == 0,
        f"either every image must have a label, or none; got {unlabelled} of {int(plan.counts.sum())} without one: "
        f"complete the labels{without} (`python -m pipeline encode` takes images with and without labels together)",
    )


def _usable_rows(listing: Listing, rejects: Sequence[Reject]) -> Iterator[pa.Table]:
    """Rows of the listing without the rejects."""
    rejected_keys = pa.array([reject.key for reject in rejects], pa.string())
    for rows in listing.tables():
        yield rows.filter(pc.invert(pc.is_in(rows["key"], rejected_keys))) if rejects else rows


# --- rows -------------------------------------------------------------------------------------------------------------


def _write_parts(
    new_writer: Callable[[], SnapshotWriter], tables: Callable[[], Iterator[pa.Table]], plan: SplitPlan, copies: int
) -> SnapshotFiles:
    """Write all rows; once more in the rare case that ids collide, which is known only when all were seen."""
    renumbered: Mapping[tuple[int, int], int] = {}
    while True:
        writer = new_writer()
        wanted, numbers = ExternalSort("id", IDS_PER_RUN), _RowNumbers(renumbered)
        for images in tables():
            rows, hashes = _snapshot_rows(images, plan, copies, numbers)
            wanted.add(pa.table({"id": hashes}))
            writer.add(rows)
        collisions = find_collisions(wanted.tables())
        if collisions == renumbered:
            return writer.finish()
        renumbered = collisions


def _snapshot_rows(
    images: pa.Table, plan: SplitPlan, copies: int, numbers: "_RowNumbers"
) -> tuple[pa.Table, np.ndarray]:
    """Rows of SNAPSHOT_SCHEMA, every image and after each training image its augmented copies; and their hashes."""
    splits = plan.assign(images["key"], positions_of(images["key"]))  # (images,)
    rows_per_image = np.where(splits == SPLITS.index(TRAIN), copies, 1)  # (images,)
    image_of_row = np.repeat(np.arange(len(splits)), rows_per_image)  # (rows,)
    first_row = np.cumsum(rows_per_image) - rows_per_image  # (images,): the row of copy 0
    copy_of_row = np.arange(len(image_of_row)) - first_row[image_of_row]  # (rows,)
    rows = images.take(pa.array(image_of_row)) if copies > 1 else images
    hashes = row_hashes(rows["key"].to_pylist(), copy_of_row)
    split_names = pa.array(SPLITS).take(pa.array(splits[image_of_row]))
    columns = {  # (rows,) each
        **{name: rows[name] for name in rows.column_names},
        "id": pa.array(numbers.ids(hashes)),
        "split": split_names,
        "copy": pa.array(copy_of_row, pa.int16()),
    }
    return pa.table([columns[name] for name in SNAPSHOT_SCHEMA.names], schema=SNAPSHOT_SCHEMA), hashes


# --- ids --------------------------------------------------------------------------------------------------------------


def row_hashes(keys: Sequence[str], copies: np.ndarray) -> np.ndarray:
    """int64 (rows,): a hash of each (key, copy), which is the row's id unless another row has the same hash."""
    hashes = [
        hashlib.sha256(f"{copy} {key}".encode()).digest()[:8] for key, copy in zip(keys, copies.tolist(), strict=True)
    ]
    # 62 bits: the sign stays positive, and adding a few to resolve collisions cannot overflow.
    return (np.frombuffer(b"".join(hashes), ">u8") >> 2).astype(np.int64)


def find_collisions(sorted_hashes: Iterator[pa.Table]) -> dict[tuple[int, int], int]:
    """The rows whose id is not their hash, as (hash, number of this hash among equal ones) -> id.

    Where the hashes of two rows collide (a billion rows have one chance in ten of that), the row with the later key
    takes the next free number.
    """
    # In the order of the hashes, each id must be the row's own hash or, if that is taken, one more than the id before:
    # id[i] = max(hash[i], id[i-1] + 1). With steps i subtracted this is a running maximum: id[i] - i =
    # max(hash[i] - i, id[i-1] - (i-1)). So ids rise strictly, hence are unique, and a row whose hash is not reached by
    # the row before keeps its hash.
    changed: dict[tuple[int, int], int] = {}
    last_id = last_hash = -1
    repeats = 0  # of the last hash so far
    for table in sorted_hashes:
        hashes = np.asarray(table["id"])  # (rows,)
        steps = np.arange(len(hashes))  # (rows,)
        shifted = hashes - steps
        shifted[0] = max(shifted[0], last_id + 1)
        ids = np.maximum.accumulate(shifted) + steps  # (rows,)
        first_of_hash = np.searchsorted(hashes, hashes)  # (rows,): where the row's hash begins in this table
        before = np.where(hashes == last_hash, repeats, 0)  # (rows,): rows with this hash in earlier tables
        number = steps - first_of_hash + before  # (rows,): of this hash among equal ones
        for row in np.flatnonzero(ids != hashes).tolist():
            changed[int(hashes[row]), int(number[row])] = int(ids[row])
        last_id, last_hash, repeats = int(ids[-1]), int(hashes[-1]), int(number[-1]) + 1
    return changed


class _RowNumbers:
    """The ids of rows in the order of their keys, given the collisions of all rows."""

    def __init__(self, renumbered: Mapping[tuple[int, int], int]) -> None:
        self._renumbered = renumbered
        self._hashes = np.array(sorted({value for value, _ in renumbered}), np.int64)
        self._seen: Counter[int] = Counter()

    def ids(self, hashes: np.ndarray) -> np.ndarray:
        """int64 (rows,): ids of the next rows."""
        ids = hashes.copy()
        for row in np.flatnonzero(np.isin(hashes, self._hashes)).tolist():
            value = int(hashes[row])
            ids[row] = self._renumbered.get((value, self._seen[value]), value)
            self._seen[value] += 1
        return ids

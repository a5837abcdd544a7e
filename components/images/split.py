"""Which images are trained on: decided by a hash of each key, so that a growing dataset moves hardly any image.

plan = plan_splits(tables, classes, held_out, test)  # reads all rows once or twice, in bounded memory
splits = plan.assign(keys, positions_of(keys))  # of any of these rows, as indices into SPLITS

Shapes: n images.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.config import require

TRAIN = "train"
HELD_OUT = "held_out"
"""Chooses weights and ends fits; never trained on."""
TEST = "test"
"""Measured by the evaluation alone."""
SPLITS = (TRAIN, HELD_OUT, TEST)


@dataclass(frozen=True)
class SplitPlan:
    """The split of every image: by the hash of its key, with the exceptions that small sets need."""

    held_out: float
    """Fraction of the images."""
    test: float
    """Fraction of the images."""
    moved: Mapping[str, str]
    """Split of each key for which the hash does not decide."""
    counts: np.ndarray
    """int64 (classes + 1, splits): images by class number and by place in SPLITS; the last class is 'no label'."""

    def assign(self, keys: pa.ChunkedArray, positions: np.ndarray) -> np.ndarray:
        """uint8 (n,): split of each image, as an index into SPLITS."""
        splits = _by_position(positions, self.held_out, self.test)
        if self.moved:
            exceptions = pa.array(list(self.moved), pa.string())
            where = np.asarray(pc.fill_null(pc.index_in(keys, value_set=exceptions), -1))  # (n,)
            to = np.array([SPLITS.index(name) for name in self.moved.values()], np.uint8)
            splits[where >= 0] = to[where[where >= 0]]
        return splits

    def images(self, split: str) -> int:
        """Number of images of one split."""
        return int(self.counts[:, SPLITS.index(split)].sum())

    def check(self) -> None:
        """Raise ValueError when a split that the fractions ask for is empty."""
        empty = [name for name in _wanted(self.test) if not self.images(name)]
        counts = (
            f"{self.images(TRAIN)} to train on, {self.images(HELD_OUT)} held out and {self.images(TEST)} to test on"
        )
        require(
            not empty,
            f"every split must hold images, got {counts} with images.held_out={self.held_out} and "
            f"images.test={self.test}: add images or change these fractions",
        )


def plan_splits(
    tables: Callable[[], Iterable[pa.Table]], classes: int, held_out: float, test: float = 0.0
) -> SplitPlan:
    """Splits of the images in `tables()`, rows with `key` and `label` by rising key.

    No class loses its last training image, and no split that is asked for stays empty while a class has a second one:
    the image of a class whose key has the greatest hash is always trained on. In all but the smallest classes its hash
    says that anyway. Images without a label are one class. A split that would be empty, as in a set of a few dozen
    images, gets the training image with the least hash.
    """
    counts = np.zeros((classes + 1, len(SPLITS)), np.int64)
    greatest = np.zeros(classes + 1, np.uint64)  # position of each class's image with the greatest hash
    keys_of_greatest: list[str | None] = [None] * (classes + 1)
    for rows in tables():
        positions, labels = positions_of(rows["key"]), _class_rows(rows["label"], classes)  # (n,) each
        splits = _by_position(positions, held_out, test)
        counts += np.bincount(labels * len(SPLITS) + splits, minlength=counts.size).reshape(counts.shape)
        order = np.lexsort((positions, labels))  # (n,): class after class, by rising position
        last = order[np.flatnonzero(np.diff(labels[order], append=-1))]  # the last row of each class
        for row in last[positions[last] >= greatest[labels[last]]].tolist():
            greatest[labels[row]] = positions[row]
            keys_of_greatest[labels[row]] = rows["key"][row].as_py()
    moved: dict[str, str] = {}
    for label, (split, key) in enumerate(
        zip(_by_position(greatest, held_out, test).tolist(), keys_of_greatest, strict=True)
    ):
        if key is not None and SPLITS[split] != TRAIN:
            _move(moved, counts, key, label, SPLITS[split], TRAIN)
    empty = [name for name in _wanted(test) if not counts[:, SPLITS.index(name)].sum()]
    if empty and empty != [TRAIN]:
        trained = pa.array([key for key in keys_of_greatest if key is not None], pa.string())
        spare = _least_training_images(tables(), trained, len(empty), classes, held_out, test)
        for name, (_, key, label) in zip(empty, spare, strict=False):
            _move(moved, counts, key, label, TRAIN, name)
    return SplitPlan(held_out, test, moved, counts)


def _least_training_images(
    tables: Iterable[pa.Table], without: pa.Array, count: int, classes: int, held_out: float, test: float
) -> list[tuple[int, str, int]]:
    """(position, key, class) of the training images with the least hashes, but for the keys `without`."""
    least: list[tuple[int, str, int]] = []
    for rows in tables:
        positions = positions_of(rows["key"])
        movable = (_by_position(positions, held_out, test) == SPLITS.index(TRAIN)) & ~np.asarray(
            pc.is_in(rows["key"], value_set=without)
        )
        chosen = np.flatnonzero(movable)[np.argsort(positions[movable], kind="stable")[:count]]
        labels = _class_rows(rows["label"], classes)
        new = [(int(positions[row]), rows["key"][row].as_py(), int(labels[row])) for row in chosen.tolist()]
        least = sorted([*least, *new])[:count]
    return least


def _move(moved: dict[str, str], counts: np.ndarray, key: str, label: int, source: str, target: str) -> None:
    moved[key] = target
    counts[label, SPLITS.index(source)] -= 1
    counts[label, SPLITS.index(target)] += 1


def _wanted(test: float) -> tuple[str, ...]:
    return SPLITS if test else (TRAIN, HELD_OUT)


def _class_rows(labels: pa.ChunkedArray, classes: int) -> np.ndarray:
    """int64 (n,): row of each image's class in the counts."""
    return np.asarray(pc.fill_null(labels, classes)).astype(np.int64)


def split_of(key: str, held_out: float, test: float = 0.0) -> str:
    """'held_out' for a fraction `held_out` of all keys, 'test' for a fraction `test`, 'train' for the others."""
    return SPLITS[_by_position(positions_of(pa.chunked_array([[key]])), held_out, test)[0]]


def positions_of(keys: pa.ChunkedArray) -> np.ndarray:
    """uint64 (n,): a hash of each key, uniform in 0 .. 2^64 - 1."""
    hashes = b"".join([hashlib.sha256(key.encode()).digest()[:8] for key in keys.to_pylist()])
    return np.frombuffer(hashes, ">u8").astype(np.uint64)


def _by_position(positions: np.ndarray, held_out: float, test: float) -> np.ndarray:
    """uint8 (n,): the split that the hash alone says, as an index into SPLITS."""
    # A larger `held_out` leaves every held-out image where it is, and only takes images from the other splits.
    fractions = positions.astype(np.float64) / 2**64  # (n,)
    beside_held_out = np.where(fractions < held_out + test, SPLITS.index(TEST), SPLITS.index(TRAIN))
    return np.where(fractions < held_out, SPLITS.index(HELD_OUT), beside_held_out).astype(np.uint8)

"""Which images are trained on: decided by a hash of each key, so that a growing dataset moves hardly any image."""

import hashlib
from collections.abc import Sequence

from components.config import require

TRAIN = "train"
HELD_OUT = "held_out"
"""Chooses weights and ends fits; never trained on."""
TEST = "test"
"""Measured by the evaluation alone."""
SPLITS = (TRAIN, HELD_OUT, TEST)


def split_of(key: str, held_out: float, test: float = 0.0) -> str:
    """'held_out' for a fraction `held_out` of all keys, 'test' for a fraction `test`, 'train' for the others."""
    # A larger `held_out` leaves every held-out image where it is, and only takes images from the other splits.
    position = _position(key)
    if position < held_out:
        return HELD_OUT
    return TEST if position < held_out + test else TRAIN


def assign_splits(keys: Sequence[str], labels: Sequence[int | None], held_out: float, test: float = 0.0) -> list[str]:
    """The split of each image, in the order of `keys`; no class loses its last training image, and no split that is
    asked for stays empty while a class has a second one.

    The image of a class whose key has the greatest hash is always trained on. In all but the smallest classes
    `split_of` says that anyway. Images without a label are one class. A split that would be empty, as in a set of a
    few dozen images, gets the training image with the least hash.
    """
    splits = [split_of(key, held_out, test) for key in keys]
    last: dict[int | None, tuple[float, int]] = {}  # greatest (position, row) of each class
    for row, (key, label) in enumerate(zip(keys, labels, strict=True)):
        last[label] = max(last.get(label, (-1.0, -1)), (_position(key), row))
    always_trained = {row for _, row in last.values()}
    for row in always_trained:
        splits[row] = TRAIN
    for name in (HELD_OUT, TEST) if test else (HELD_OUT,):
        spare = [] if name in splits else [row for row, split in enumerate(splits) if split == TRAIN]
        movable = [row for row in spare if row not in always_trained]
        if movable:
            splits[min(movable, key=lambda row: _position(keys[row]))] = name
    return splits


def check_splits(splits: Sequence[str], held_out: float, test: float = 0.0) -> None:
    """Raise ValueError when a split that the fractions ask for is empty."""
    needed = (TRAIN, HELD_OUT, TEST) if test else (TRAIN, HELD_OUT)
    empty = [name for name in needed if name not in splits]
    counts = f"{splits.count(TRAIN)} to train on, {splits.count(HELD_OUT)} held out and {splits.count(TEST)} to test on"
    require(
        not empty,
        f"every split must hold images, got {counts} with images.held_out={held_out} and images.test={test}: add "
        "images or change these fractions",
    )


def _position(key: str) -> float:
    """Uniform in [0, 1), the same for equal keys."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64

"""The splits: their fractions, their stability, the last training image of a class, and the refusal of an empty one."""

import hashlib
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from components.images.split import HELD_OUT, SPLITS, TEST, TRAIN, SplitPlan, plan_splits, positions_of, split_of

KEYS = [f"class/{number}.png" for number in range(5000)]


def plan_of(keys, labels, held_out, test=0.0, rows_per_table=7) -> SplitPlan:
    numbers = {label: number for number, label in enumerate(sorted({label for label in labels if label is not None}))}
    table = pa.table(
        [pa.array(keys, pa.string()), pa.array([numbers.get(label) for label in labels], pa.int32())],
        names=["key", "label"],
    )
    return plan_splits(lambda: table.to_batches(rows_per_table), len(numbers), held_out, test)


def assign_splits(keys, labels, held_out, test=0.0) -> list[str]:
    plan = plan_of(keys, labels, held_out, test)
    column = pa.chunked_array([pa.array(keys, pa.string())])
    splits = [SPLITS[number] for number in plan.assign(column, positions_of(column))]
    assert [plan.images(name) for name in SPLITS] == [splits.count(name) for name in SPLITS]
    return splits


def assign_slowly(keys, labels, held_out, test) -> list[str]:
    """The rules with everything in memory."""
    positions = [int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") for key in keys]
    splits = [split_of(key, held_out, test) for key in keys]
    last = {max((positions[row], row) for row, each in enumerate(labels) if each == label)[1] for label in set(labels)}
    for row in last:
        splits[row] = TRAIN
    for name in (HELD_OUT, TEST) if test else (HELD_OUT,):
        movable = [row for row, split in enumerate(splits) if split == TRAIN and row not in last]
        if name not in splits and movable:
            splits[min(movable, key=lambda row: positions[row])] = name
    return splits


@pytest.mark.parametrize("seed", range(40))
def test_splits_of_a_stream_are_those_of_all_rows_together(seed):
    random = np.random.default_rng(seed)
    keys = [f"{number}-{seed}" for number in range(random.integers(1, 60))]
    labels = [None if label == 9 else int(label) for label in random.integers(0, random.integers(2, 11), len(keys))]
    held_out, test = random.choice([1e-9, 0.1, 0.45]), random.choice([0, 1e-9, 0.1, 0.45])
    assert assign_splits(keys, labels, held_out, test) == assign_slowly(keys, labels, held_out, test)


def test_the_fractions_are_as_configured():
    counts = Counter(split_of(key, 0.2, 0.1) for key in KEYS)
    assert abs(counts[HELD_OUT] / len(KEYS) - 0.2) < 0.02 and abs(counts[TEST] / len(KEYS) - 0.1) < 0.02
    assert Counter(split_of(key, 0.2) for key in KEYS).keys() == {TRAIN, HELD_OUT}


def test_a_larger_fraction_keeps_the_held_out_images():
    held = {key for key in KEYS if split_of(key, 0.1) == HELD_OUT}
    assert held and all(split_of(key, 0.3) == HELD_OUT for key in held)


def test_a_test_split_moves_no_held_out_image_and_a_larger_one_keeps_its_images():
    assert [split_of(key, 0.1) == HELD_OUT for key in KEYS] == [split_of(key, 0.1, 0.3) == HELD_OUT for key in KEYS]
    test = {key for key in KEYS if split_of(key, 0.1, 0.1) == TEST}
    assert test and all(split_of(key, 0.1, 0.3) == TEST for key in test)


def test_every_class_keeps_an_image_to_train_on_and_no_other_image_moves():
    labels = [None, *(number // 2 for number in range(1, len(KEYS)))]  # a class of one image, then of two
    plain = [split_of(key, 0.4, 0.4) for key in KEYS]
    assigned = assign_splits(KEYS, labels, 0.4, 0.4)
    for label in set(labels):
        rows = [row for row, other in enumerate(labels) if other == label]
        trained = [row for row in rows if assigned[row] == TRAIN]
        before = [row for row in rows if plain[row] == TRAIN]
        assert trained == before or (before == [] and len(trained) == 1)
    assert all(new in (old, TRAIN) for new, old in zip(assigned, plain, strict=True)) and set(assigned) == set(SPLITS)


def test_the_image_that_a_class_keeps_does_not_depend_on_other_classes():
    pair = ["a/0.png", "a/1.png"]
    alone = assign_splits(pair, [0, 0], 0.5, 0.49)
    assert alone == assign_splits([*pair, *KEYS], [0, 0, *[1] * len(KEYS)], 0.5, 0.49)[:2] and TRAIN in alone


@pytest.mark.parametrize("count", [3, 12, 24])
def test_no_split_of_a_small_set_is_empty_and_only_as_many_images_move_as_needed(count):
    keys = KEYS[:count]
    for held_out, test in ((1e-6, 0.0), (1e-6, 1e-6), (0.05, 0.05)):
        plain = [split_of(key, held_out, test) for key in keys]
        assigned = assign_splits(keys, [None] * count, held_out, test)
        plan_of(keys, [None] * count, held_out, test).check()
        missing = [name for name in (SPLITS if test else (TRAIN, HELD_OUT)) if name not in plain]
        moved = [new for new, old in zip(assigned, plain, strict=True) if new != old]
        assert sorted(moved) == sorted(missing)


def test_an_image_that_fills_a_split_is_never_the_last_of_its_class():
    assert assign_splits(KEYS[:3], [0, 1, 2], 1e-6, 1e-6) == [TRAIN] * 3
    filled = assign_splits(KEYS[:4], [0, 0, 1, 2], 1e-6, 1e-6)
    assert Counter(filled) == {TRAIN: 3, HELD_OUT: 1} and HELD_OUT in filled[:2]


@pytest.mark.parametrize("keys", [[], ["a"], KEYS[:3]])
def test_an_empty_split_is_refused(keys):
    with pytest.raises(ValueError, match=r"every split must hold images, got .* to train on"):
        plan_of(keys, keys, 0.001).check()  # a class each


def test_an_empty_test_split_is_refused_only_where_one_is_wanted():
    plan_of(["a", "b"], [0, 0], 0.1).check()
    with pytest.raises(ValueError, match=r"1 held out and 0 to test on with .* images\.test=0\.1"):
        plan_of(["a", "b"], [0, 0], 0.1, 0.1).check()

"""The splits: their fractions, their stability, the last training image of a class, and the refusal of an empty one."""

from collections import Counter

import pytest

from components.images.split import HELD_OUT, SPLITS, TEST, TRAIN, assign_splits, check_splits, split_of

KEYS = [f"class/{number}.png" for number in range(5000)]


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


@pytest.mark.parametrize("keys", [[], ["a"], KEYS[:3]])
def test_an_empty_split_is_refused(keys):
    with pytest.raises(ValueError, match=r"every split must hold images, got .* to train on"):
        check_splits([split_of(key, 0.001) for key in keys], 0.001)


def test_an_empty_test_split_is_refused_only_where_one_is_wanted():
    check_splits([TRAIN, HELD_OUT], 0.1)
    with pytest.raises(ValueError, match=r"1 held out and 0 to test on with .* images\.test=0\.1"):
        check_splits([TRAIN, HELD_OUT], 0.1, 0.1)

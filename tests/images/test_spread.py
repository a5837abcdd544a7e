"""The two orders compared with slow versions in exact arithmetic, on classes of any size."""

from fractions import Fraction

import numpy as np
import pytest

from components.images.spread import class_rounds, proportional_order

SIZES = [[7], [1, 1, 1], [5, 7], [20000, 15], [1, 40, 3, 9, 27], [2] * 30]


def sorted_classes(sizes, seed=0):
    """Labels by rising class, and random ids."""
    labels = np.repeat(np.arange(-1, len(sizes) - 1), sizes)  # the first class has no label
    return labels, np.random.default_rng(seed).permutation(10 * len(labels))[: len(labels)]


def by_class(labels, ids):
    """Positions of each class by rising id."""
    classes = {label: np.flatnonzero(labels == label).tolist() for label in labels.tolist()}
    return [sorted(rows, key=lambda row: ids[row]) for rows in classes.values()]


@pytest.mark.parametrize("sizes", SIZES)
def test_the_proportional_order_allots_places_by_webster_s_method(sizes):
    labels, ids = sorted_classes(sizes)
    places = [
        (Fraction(2 * rank + 1, 2 * len(rows)), ids[row], row)
        for rows in by_class(labels, ids)
        for rank, row in enumerate(rows)
    ]
    assert proportional_order(labels, ids).tolist() == [row for _, _, row in sorted(places)]


@pytest.mark.parametrize("sizes", SIZES)
def test_rounds_take_one_image_of_each_class(sizes):
    labels, ids = sorted_classes(sizes)
    classes, expected = by_class(labels, ids), []
    while any(classes):
        expected += sorted((rows.pop(0) for rows in classes if rows), key=lambda row: ids[row])
    assert class_rounds(labels, ids).tolist() == expected


def test_the_first_rows_of_a_thousand_sorted_classes_hold_all_of_them():
    labels, ids = sorted_classes([26] * 1000)
    assert len(set(labels[:1024])) == 40  # what the first rows of the snapshot would hold
    for order in (proportional_order, class_rounds):
        assert len(set(labels[order(labels, ids)[:1024]].tolist())) == 1000


def test_half_of_the_order_has_half_of_each_class():
    labels, ids = sorted_classes([200, 2000, 20])
    half = labels[proportional_order(labels, ids)[: len(labels) // 2]]
    assert [int((half == label).sum()) for label in (-1, 0, 1)] == [100, 1000, 10]


@pytest.mark.parametrize("order", [proportional_order, class_rounds])
def test_the_order_names_the_same_images_however_the_rows_are_sorted(order):
    labels, ids = sorted_classes([5, 17, 2])
    shuffled = np.random.default_rng(1).permutation(len(labels))
    assert (ids[order(labels, ids)] == ids[shuffled][order(labels[shuffled], ids[shuffled])]).all()


@pytest.mark.parametrize("order", [proportional_order, class_rounds])
def test_no_images_have_an_empty_order(order):
    assert order(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []

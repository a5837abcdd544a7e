"""Reading ahead: order, bounded look-ahead, errors."""

import pytest

from components.store.read_ahead import map_ahead


def test_results_come_in_order_and_items_are_taken_up_no_more_than_ahead():
    taken: list[int] = []
    results = map_ahead(lambda item: item * item, (taken.append(item) or item for item in range(100)), 4)
    assert [next(results) for _ in range(10)] == [item * item for item in range(10)]
    assert len(taken) <= 10 + 4
    assert list(results) == [item * item for item in range(10, 100)]


def test_an_error_is_raised_in_the_place_of_its_result():
    results = map_ahead(lambda item: 6 // item, [3, 2, 0, 1], 2)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)

"""The order of samples, against one long list of epochs."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats

from components.training import sample_order
from components.training.sample_order import batch_rows, epoch_order, worker_slice


def test_an_epoch_draws_each_row_once_and_epochs_differ():
    epochs = [epoch_order(7, epoch, 100) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert (epochs[0] != epochs[1]).any() and (epoch_order(8, 0, 100) != epochs[0]).any()


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (10, 10), (3, 8), (1, 5)])
def test_batches_from_any_offset_continue_one_long_list(n, batch_size):
    drawn = np.concatenate([epoch_order(3, epoch, n) for epoch in range(60)])
    for start in (0, 1, n - 1, n, 2 * n + 1):
        assert (batch_rows(start, batch_size, 3, n) == drawn[start : start + batch_size]).all()


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_workers_share_a_batch_without_loss_whatever_their_number(world):
    batch = batch_rows(40, 8, 0, 50)
    shares = [worker_slice(batch, rank, world) for rank in range(world)]
    assert Counter(np.concatenate(shares).tolist()) == Counter(batch.tolist())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_batch_smaller_than_the_workers_is_refused():
    with pytest.raises(ValueError, match="a sample for each of 4 workers, got 3: raise batch_size"):
        worker_slice(np.arange(3), 0, 4)
    with pytest.raises(ValueError, match="at least one row"):
        batch_rows(0, 4, 0, 0)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 1000, 4096, 4097])
def test_a_computed_order_has_each_row_once_and_differs_between_epochs_and_seeds(n):
    orders = [sample_order.epoch_rows(np.arange(n), seed, epoch, n) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(n)) for order in orders)
    if n >= 17:
        assert len({tuple(order) for order in orders}) == 3


def test_a_computed_order_looks_random():
    n = 10_000
    rows = np.concatenate([sample_order.epoch_rows(np.arange(n), seed, 0, n) for seed in range(20)])
    positions = np.tile(np.arange(n), 20)
    counts, _, _ = np.histogram2d(positions, rows, bins=20)  # 500 expected in each of 400 cells
    assert scipy.stats.chisquare(counts.ravel(), ddof=38).pvalue > 1e-3
    steps = np.histogram(np.diff(rows) % n, bins=20, range=(0, n))[0]
    assert scipy.stats.chisquare(steps).pvalue > 1e-3


def test_a_split_with_more_rows_than_a_table_holds_is_drawn_without_one(monkeypatch):
    n = 10**9 + 7
    far = sample_order.batch_rows(n - 3, 8, 5, n)  # over the end of the first epoch
    assert len(set(far.tolist())) == 8 and far.min() >= 0 and far.max() < n
    assert sample_order.epoch_order.cache_info().currsize <= 2
    monkeypatch.setattr(sample_order, "LARGEST_TABLE", 0)
    drawn = np.concatenate([sample_order.batch_rows(start, 7, 5, 50) for start in range(0, 105, 7)])
    assert sorted(drawn[:50]) == sorted(drawn[50:100]) == list(range(50))

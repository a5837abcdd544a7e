"""The order of samples, against one long list of epochs."""

from collections import Counter

import numpy as np
import pytest

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

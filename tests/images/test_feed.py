"""Batches of the image feed compared with rows that are drawn and decoded directly."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.config import TrainingSchedule
from components.errors import TooManyRejects
from components.images.commit import commit_snapshot
from components.images.config import AugmentConfig
from components.images.feed import ImageFeed
from components.images.pixels import PixelReader
from components.images.snapshot import read_snapshot
from components.images.sources.registry import list_images
from components.images.split import HELD_OUT, TRAIN
from components.training.sample_order import batch_rows, worker_slice

ORDER_SEED, PIXEL_SEED = 3, 5
SCHEDULE = TrainingSchedule(updates=14, batch_size=12, held_out_samples=11)


@pytest.fixture
def config(tree, settings):
    """A folder source with augmented copies, so that the pixel seed matters."""
    return settings(uri=str(tree), held_out=0.3, augment=AugmentConfig(copies=3, degrees=20, shift=0.1))


@pytest.fixture
def folder(config, tmp_path) -> str:
    """A committed snapshot."""
    folder = str(tmp_path / "snapshot")
    commit_snapshot(folder, list_images(config, folder), [], config, seed=PIXEL_SEED)
    return folder


def image_feed(folder: str, readers: int = 0) -> ImageFeed:
    return ImageFeed(folder=folder, schedule=SCHEDULE, order_seed=ORDER_SEED, readers=readers)


def expected_batch(folder, config, update, rank, workers):
    """Pixels and labels that worker `rank` gets at `update`."""
    rows = read_snapshot(folder).split(TRAIN)
    drawn = batch_rows(update * SCHEDULE.batch_size, SCHEDULE.batch_size, ORDER_SEED, rows.num_rows)
    chosen = rows.take(pa.array(worker_slice(drawn, rank, workers)))
    return PixelReader(config, PIXEL_SEED).read(chosen), np.array(chosen["label"].to_pylist())


@pytest.mark.parametrize(("rank", "workers", "first"), [(0, 1, 0), (0, 3, 0), (2, 3, 9)])
def test_batches_are_the_rows_of_the_sample_order(folder, config, rank, workers, first):
    batches = list(image_feed(folder)(rank, workers).batches(first))
    assert len(batches) == SCHEDULE.updates - first
    for update, batch in enumerate(batches, start=first):
        pixels, labels = expected_batch(folder, config, update, rank, workers)
        assert (batch.pixels.numpy() == pixels).all() and (batch.labels.numpy() == labels).all()
        assert batch.labels.dtype == torch.int64


def test_held_out_originals_are_split_among_the_workers(folder, config):
    rows = read_snapshot(folder).sample(HELD_OUT, SCHEDULE.held_out_samples)
    expected = PixelReader(config, PIXEL_SEED).read(rows)
    for rank in range(2):
        batches = list(image_feed(folder)(rank, 2).held_out())
        assert (np.concatenate([batch.pixels.numpy() for batch in batches]) == expected[rank::2]).all()


def test_held_out_originals_have_the_classes_in_proportion(folder):
    labels = read_snapshot(folder).originals(HELD_OUT)["label"].to_pylist()  # sorted by class
    read = [label for batch in image_feed(folder)(0, 1).held_out() for label in batch.labels.tolist()]
    assert len(read) == SCHEDULE.held_out_samples < len(labels) and 0 in labels[: len(read)]
    for label in (0, 1):
        assert abs(read.count(label) - len(read) * labels.count(label) / len(labels)) < 1


def test_readers_are_ignored_without_ray(folder):
    alone, with_readers = (list(image_feed(folder, readers)(0, 2).batches(10)) for readers in (0, 2))
    assert all((left.pixels == right.pixels).all() for left, right in zip(alone, with_readers, strict=True))


def test_unlabelled_images_have_label_minus_one(tree, tmp_path, settings):
    config, folder = settings(uri=str(tree), source="files", held_out=0.3), str(tmp_path / "unlabelled")
    commit_snapshot(folder, list_images(config, folder), [], config, seed=0)
    assert set(next(image_feed(folder)(0, 1).batches(0)).labels.tolist()) == {-1}


@pytest.mark.ray
def test_ray_data_tasks_give_the_same_batches(folder, monkeypatch, local_ray):
    monkeypatch.setattr("components.images.feed.IMAGES_PER_TASK", 24)  # tasks of 6 updates of 4 images, the last of 1
    monkeypatch.setattr("components.images.feed_worker.TASKS_PER_PLAN", 2)
    decoded, expected = (list(image_feed(folder, readers)(1, 3).batches(1)) for readers in (2, 0))
    assert len(decoded) == len(expected) == 13
    for left, right in zip(decoded, expected, strict=True):
        assert (left.pixels == right.pixels).all() and (left.labels == right.labels).all()


def test_an_image_that_went_bad_is_replaced_by_the_next_of_its_batch(folder, config, tree, monkeypatch):
    monkeypatch.setattr("components.images.feed.MAX_LOST", 0.1)
    before = list(image_feed(folder)(0, 1).batches(0))
    bad = read_snapshot(folder).split(TRAIN)["key"][0].as_py()
    (tree / bad).write_bytes(b"changed")
    data = image_feed(folder)(0, 1)
    after, resumed = list(data.batches(0)), list(image_feed(folder)(0, 1).batches(5))
    keys = read_snapshot(folder).split(TRAIN)["key"].to_pylist()
    replaced = 0
    for update in range(SCHEDULE.updates):
        drawn = batch_rows(update * SCHEDULE.batch_size, SCHEDULE.batch_size, ORDER_SEED, len(keys)).tolist()
        for number in range(SCHEDULE.batch_size):
            later = [*range(number, SCHEDULE.batch_size), *range(number)]
            shown = next(position for position in later if keys[drawn[position]] != bad)
            replaced += shown != number
            assert (after[update].pixels[number] == before[update].pixels[shown]).all()
            assert after[update].labels[number] == before[update].labels[shown]
    (line,) = data.remarks()
    assert replaced > 0 and f"went bad and is left out: {bad}: changed, " in line and not data.remarks()
    assert all((left.pixels == right.pixels).all() for left, right in zip(after[5:], resumed, strict=True))


def test_held_out_images_that_went_bad_are_left_out(folder, tree, monkeypatch):
    monkeypatch.setattr("components.images.feed.MAX_LOST", 0.2)
    rows = read_snapshot(folder).sample(HELD_OUT, SCHEDULE.held_out_samples)
    (tree / rows["key"][2].as_py()).unlink()
    batches = list(image_feed(folder)(0, 1).held_out())
    assert sum(len(batch.labels) for batch in batches) == SCHEDULE.held_out_samples - 1


def test_a_fit_fails_when_too_many_images_went_bad(folder, tree):
    for path in sorted((tree / "cat").iterdir())[:10]:
        path.write_bytes(b"changed")
    with pytest.raises(TooManyRejects, match=r"at most 1% of the \d+ rows of the split train may go bad"):
        list(image_feed(folder)(0, 1).batches(0))

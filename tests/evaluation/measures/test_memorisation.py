"""The nearest training image compared with scikit-learn's; copies far into the training set; new images."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from components.evaluation.measures.memorisation import NearestImages, copied_share, memorisation_ratio, thumbnails
from components.images.tensors import to_images
from tests.evaluation.random_data import normal_features, random_pixels


def search(queries, training, rows_per_chunk=64):
    nearest = NearestImages(queries)
    for first in range(0, len(training), rows_per_chunk):
        nearest.update(training[first : first + rows_per_chunk], first)
    return nearest


def test_the_nearest_of_many_chunks_is_scikit_learns():
    queries, training = normal_features(70, 9).float(), normal_features(500, 9, seed=1).float()
    found = search(queries, training)
    distances, rows = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(training.double()).kneighbors(queries)
    assert found.rows.tolist() == rows[:, 0].tolist()
    torch.testing.assert_close(found.distances, torch.from_numpy(distances[:, 0]))


def test_searches_of_other_chunks_are_merged_in_any_order():
    queries, training = normal_features(50, 9).float(), normal_features(300, 9, seed=1).float()
    training[250:] = training[:50]  # equal distances: the lower row is kept
    whole, late, early = search(queries, training), NearestImages(queries), NearestImages(queries)
    late.update(training[100:], 100)
    early.update(training[:100], 0)
    late.merge(early)
    assert torch.equal(late.rows, whole.rows) and torch.equal(late.distances, whole.distances)
    assert whole.rows.max() < 250


def test_copies_anywhere_in_a_large_training_set_are_counted_and_read_exactly_zero():
    train, fresh, held_out = (random_pixels(n, 8, 8, 1, seed=i) for i, n in enumerate((8_000, 900, 300)))
    samples = torch.cat([train[-100:], fresh])  # the last images of the training set are copied
    training = thumbnails(train)
    found, usual = (search(thumbnails(pixels), training, 3_000) for pixels in (samples, held_out))
    assert found.distances[:100].max() == 0 and found.rows[:100].tolist() == list(range(7_900, 8_000))
    assert copied_share(found.distances, usual.distances) == pytest.approx(0.11, abs=0.011)
    assert copied_share(found.distances[100:], usual.distances) == pytest.approx(0.01, abs=0.011)


def test_exact_copies_count_where_held_out_images_are_copies_too():
    held_out = torch.cat([torch.zeros(5), torch.ones(95)])
    assert copied_share(torch.tensor([0.0, 0.5, 1.0, 2.0]), held_out) == 0.25
    assert memorisation_ratio(torch.tensor([0.5, 0.5]), torch.zeros(3)) > 1e6


def test_copies_have_ratio_zero_and_new_images_ratio_one():
    train = thumbnails(random_pixels(40, 16, 16, 1))
    held_out, fresh = (search(thumbnails(random_pixels(20, 16, 16, 1, seed=s)), train).distances for s in (1, 2))
    assert memorisation_ratio(search(train[:20], train).distances, held_out) == 0
    assert memorisation_ratio(fresh, held_out) == pytest.approx(1, abs=0.1)


def test_searches_without_queries_or_training_images_are_empty():
    assert len(search(torch.zeros(0, 4), torch.zeros(3, 4)).rows) == 0
    assert search(torch.zeros(2, 4), torch.zeros(0, 4)).rows.tolist() == [-1, -1]


def test_thumbnails_average_areas():
    pixels = random_pixels(2, 32, 48, 3)
    expected = to_images(pixels).reshape(2, 3, 16, 2, 16, 3).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(thumbnails(pixels), expected)

"""Measures against closed forms and slow, obvious versions."""

import math

import pytest
import torch

from components.classifier.config import ClassifierConfig
from components.classifier.model import Classifier
from components.config import TrainingConfig
from components.evaluation import metrics
from components.tokenizer.model import to_images
from components.training.batches import ImageBatch


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def bytes_(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def whitened(n, f, seed):
    """(n, f) with mean 0 and covariance exactly 1."""
    x = normal(n, f, seed=seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T


def test_frechet_distance_of_gaussians_with_known_moments():
    shift, first, second = normal(4, seed=1), torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 2, 1, 5])
    real, others = whitened(40, 4, 2) * first, whitened(60, 4, 3) * second + shift
    expected = shift.square().sum() + (first - second).square().sum()  # covariances are diagonal, so they commute
    assert metrics.frechet_distance(real, others) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_distance_of_equal_sets_is_zero_even_with_fewer_images_than_features():
    features = normal(10, 30)
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-4)


def slow_share_among(points, members, k):
    found = 0
    for point in points:
        for member in members:
            radius = sorted((member - other).norm().item() for other in members)[k]
            if (point - member).norm().item() <= radius:
                found += 1
                break
    return found / len(points)


def test_precision_and_recall_agree_with_the_definition(monkeypatch):
    monkeypatch.setattr(metrics, "IMAGES_PER_CHUNK", 7)
    real, others = normal(30, 3), normal(20, 3, seed=1) + 1.5
    expected = slow_share_among(others, real, 3), slow_share_among(real, others, 3)
    assert metrics.precision_recall(real, others, 3) == pytest.approx(expected)
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_too_few_images_for_neighbours_are_refused():
    with pytest.raises(ValueError, match="more than neighbours=3 images, got 3"):
        metrics.precision_recall(normal(10, 2), normal(3, 2), 3)


def test_copies_are_told_from_new_images():
    train, held_out, fresh = bytes_(40, 16, 16, 1), bytes_(20, 16, 16, 1, seed=1), bytes_(20, 16, 16, 1, seed=2)
    assert metrics.memorisation(train[:20], held_out, train) == pytest.approx(0, abs=1e-6)
    assert metrics.memorisation(fresh, held_out, train) == pytest.approx(1, abs=0.1)


def test_thumbnails_average_areas():
    pixels = bytes_(2, 32, 48, 3)
    expected = to_images(pixels).reshape(2, 3, 16, 2, 16, 3).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(metrics.thumbnails(pixels), expected)


def test_psnr_of_a_known_error():
    pixels = torch.full((2, 4, 4, 1), 100, dtype=torch.uint8)
    assert metrics.psnr(pixels, pixels + 5) == pytest.approx(20 * math.log10(255 / 5))
    assert metrics.psnr(pixels, pixels) == pytest.approx(20 * math.log10(255 / 1e-6))


def test_uniform_codes_cost_their_bits():
    nats = [math.log(512), math.log(256)]  # 9 and 8 bits a code
    bits = metrics.bits_per_dimension(nats, [1024, 4096], 256 * 256 * 3)
    assert bits == pytest.approx((9 * 1024 + 8 * 4096) / 196608)


def test_the_score_of_samples_that_tell_the_classes_apart_is_one():
    torch.manual_seed(0)
    config = ClassifierConfig(hidden=4, stages=2, training=TrainingConfig(updates=1, batch_size=1))
    judge = Classifier(config, channels=1, classes=2)
    labels = torch.arange(40) % 2
    pixels = (bytes_(40, 8, 8, 1) // 4) + (labels * 150).to(torch.uint8)[:, None, None, None]
    good, bad = ImageBatch(pixels, labels), ImageBatch(pixels, 1 - labels)
    state = torch.get_rng_state()
    assert metrics.classification_accuracy_score(judge, good, good, updates=30, seed=1) == 1
    assert metrics.classification_accuracy_score(judge, bad, good, updates=30, seed=1) == 0
    assert torch.equal(torch.get_rng_state(), state)

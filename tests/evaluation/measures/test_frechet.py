"""The Frechet distance compared with its closed form, scipy's matrix root and torchmetrics; its interval compared with
what repeated draws give."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from components.evaluation.measures.frechet import (
    FRECHET_DISTANCE,
    estimate_frechet,
    frechet_distance,
    frechet_refusal,
)
from components.evaluation.measures.kernel import kernel_distances
from components.evaluation.measures.kinds import ComparisonSettings
from components.evaluation.measures.moments import Moments
from tests.evaluation.random_data import feature_set, normal_features, normal_set

SETTINGS = ComparisonSettings()


def whitened(n, f, seed):
    """(n, f) with mean 0 and covariance exactly 1."""
    x = normal_features(n, f, seed=seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T


def correlated(n, seed):
    """(n, 12) of correlated features."""
    return normal_features(n, 12, seed=seed) @ normal_features(12, 12, seed=99) + 0.3 * seed


def test_frechet_distance_of_gaussians_with_known_moments():
    shift, first, second = normal_features(4, seed=1), torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 2, 1, 5])
    real, others = whitened(40, 4, 2) * first, whitened(60, 4, 3) * second + shift
    expected = shift.square().sum() + (first - second).square().sum()  # covariances are diagonal, so they commute
    assert frechet_distance(Moments.of(real), Moments.of(others)) == pytest.approx(expected.item(), rel=1e-6)


def test_frechet_distance_is_that_of_scipys_matrix_root():
    a, b = (Moments.of(correlated(50, seed)) for seed in (1, 2))
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real
    expected = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace() - 2 * np.trace(root)
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-5)


class GivenFeatures(nn.Module):
    """In place of the network that torchmetrics expects: returns the given features unchanged."""

    num_features = 12

    def forward(self, features):
        return features


def test_the_estimate_is_the_figure_of_torchmetrics():
    real, others = (feature_set(correlated(n, seed)) for n, seed in ((50, 1), (80, 2)))
    metric = FrechetInceptionDistance(feature=GivenFeatures()).set_dtype(torch.float64)
    metric.update(real.features.double(), real=True)
    metric.update(others.features.double(), real=False)
    assert estimate_frechet(real, others, SETTINGS).value == pytest.approx(metric.compute().item(), rel=1e-5)


def test_features_that_are_constant_in_one_set_or_both_are_measured():
    """A network has unused features: constant ones."""
    features = correlated(50, 1), correlated(60, 2)
    plain = estimate_frechet(*map(feature_set, features), SETTINGS)
    constant = [torch.cat([each, torch.full((len(each), 1), 2.0)], dim=1) for each in features]
    assert estimate_frechet(*map(feature_set, constant), SETTINGS) == pytest.approx(plain, rel=1e-6)
    varying = torch.cat([features[1], whitened(60, 1, 7) * 3 + 2], dim=1)  # adds its variance, but for correlations
    one_sided = estimate_frechet(feature_set(constant[0]), feature_set(varying), SETTINGS)
    assert one_sided.value == pytest.approx(plain.value + 9, rel=0.05) and np.isfinite(one_sided.high)


def test_frechet_distance_of_equal_sets_is_zero_even_with_fewer_images_than_features():
    moments = Moments.of(normal_features(10, 30))
    assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "shift"), [(64, 0.0), (64, 0.3), (640, 0.3)])
def test_the_interval_is_as_wide_as_repeated_draws_scatter(n, shift):
    repeated = [
        estimate_frechet(normal_set(n, 32, seed=seed), normal_set(n, 32, seed=seed + 999, shift=shift), SETTINGS)
        for seed in range(40)
    ]
    scatter = np.std([each.value for each in repeated], ddof=1)
    stated = np.mean([each.high - each.low for each in repeated]) / (2 * 1.96)
    assert 0.7 < stated / scatter < 1.7


def test_reference_statistics_give_the_same_value_and_a_narrower_interval():
    real, others = normal_set(100, 8), normal_set(90, 8, seed=1, shift=0.5)
    of_features = estimate_frechet(real, others, SETTINGS)
    reference = Moments.of(real.features)
    of_statistics = estimate_frechet(Moments(None, reference.mean, reference.covariance), others, SETTINGS)
    assert of_statistics.value == of_features.value
    assert 0 < of_statistics.high - of_statistics.low < of_features.high - of_features.low
    with pytest.raises(ValueError, match="as many features, got 8 and 4"):
        estimate_frechet(reference, normal_set(90, 4), SETTINGS)


# --- few images -------------------------------------------------------------------------------------------------------


def test_fewer_images_than_twice_the_features_are_refused_with_the_reason():
    assert FRECHET_DISTANCE.refuses(normal_set(128, 64), normal_set(128, 64), SETTINGS) == ""
    for real, others in ((127, 500), (500, 127)):
        reason = FRECHET_DISTANCE.refuses(normal_set(real, 64), normal_set(others, 64), SETTINGS)
        assert "64 features needs at least 128 images in each set, got 127" in reason and "by noise" in reason
        with pytest.raises(ValueError, match="got 127"):
            estimate_frechet(normal_set(real, 64), normal_set(others, 64), SETTINGS)
    assert frechet_refusal(None, 128, 64) == "" and "got 100" in frechet_refusal(None, 100, 64)


def test_at_few_images_the_frechet_distance_ranks_by_noise_and_the_kernel_distance_does_not():
    frechet_right = kernel_right = 0
    for seed in range(0, 120, 3):
        real, perfect, narrow = (normal_features(250, 192, seed=seed + i) for i in range(3))
        narrow = narrow * 0.5**0.5  # lost half of its variance
        near, far = (frechet_distance(Moments.of(real), Moments.of(each)) for each in (perfect, narrow))
        frechet_right += near < far
        settings = ComparisonSettings(kernel_subsets=1)
        near, far = (kernel_distances(real, each, settings).mean() for each in (perfect, narrow))
        kernel_right += bool(near < far)
    assert FRECHET_DISTANCE.refuses(feature_set(real), feature_set(perfect), SETTINGS)
    assert frechet_right == 0 and kernel_right >= 36, (frechet_right, kernel_right)

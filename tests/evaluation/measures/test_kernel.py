"""The kernel distance compared with loops, scikit-learn and torchmetrics; its interval with repeated draws."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel as sklearn_kernel
from torch import nn
from torchmetrics.image.kid import KernelInceptionDistance

from components.evaluation.measures.kernel import estimate_kernel_distance, kernel_distances, polynomial_kernel
from components.evaluation.measures.kinds import ComparisonSettings
from tests.evaluation.random_data import normal_features, normal_set


def test_the_kernel_is_scikit_learns():
    x, y = normal_features(5, 3), normal_features(4, 3, seed=1)
    np.testing.assert_allclose(polynomial_kernel(x, y), sklearn_kernel(x, y, degree=3))


def slow_discrepancy(x, y):
    """Sums over pairs of different images."""

    def mean(pairs):
        return sum((float(a @ b) / len(a) + 1) ** 3 for a, b in pairs) / len(pairs)

    within = [[(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j] for z in (x, y)]
    return mean(within[0]) + mean(within[1]) - 2 * mean([(a, b) for a in x for b in y])


def test_small_sets_are_compared_whole_up_to_the_smaller_ones_size():
    real, others = normal_features(9, 3), normal_features(9, 3, seed=1) + 0.5
    found = kernel_distances(real, others, ComparisonSettings(kernel_subsets=3))
    np.testing.assert_allclose(found, [slow_discrepancy(real, others)] * 3)
    rng = np.random.RandomState(2020)  # as torch-fidelity draws its subsets, samples first
    _, drawn = rng.choice(6, 6, replace=False), rng.choice(9, 6, replace=False)
    found = kernel_distances(real, others[:6], ComparisonSettings(kernel_subsets=1))
    np.testing.assert_allclose(found, slow_discrepancy(real[drawn], others[:6]))


class GivenFeatures(nn.Module):
    """In place of the network that torchmetrics expects: returns the given features unchanged."""

    num_features = 8

    def forward(self, features):
        return features


def test_the_estimate_is_the_figure_of_torchmetrics():
    real, others = normal_set(60, 8), normal_set(60, 8, seed=1, shift=0.3)
    metric = KernelInceptionDistance(feature=GivenFeatures(), subsets=1, subset_size=60).set_dtype(torch.float64)
    metric.update(real.features.double(), real=True)
    metric.update(others.features.double(), real=False)
    found = estimate_kernel_distance(real, others, ComparisonSettings(kernel_subset_size=60, kernel_subsets=2))
    assert found.value == pytest.approx(metric.compute()[0].item(), rel=1e-5)


def test_it_is_right_on_average_for_equal_distributions():
    settings = ComparisonSettings(kernel_subsets=1)
    values = [
        kernel_distances(normal_features(30, 8, seed=s), normal_features(30, 8, seed=s + 999), settings).item()
        for s in range(40)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / 40**0.5 and min(values) < 0 < max(values)


def stated_over_scatter(n, *, subset, shift):
    """The intervals' mean standard deviation, divided by that of values of repeated draws of n images."""
    settings = ComparisonSettings(kernel_subset_size=subset, kernel_subsets=40)
    repeated = [
        estimate_kernel_distance(normal_set(n, 16, seed=s), normal_set(n, 16, seed=s + 999, shift=shift), settings)
        for s in range(40)
    ]
    scatter = np.std([each.value for each in repeated], ddof=1)
    return np.mean([each.high - each.low for each in repeated]) / (2 * 1.96) / scatter


@pytest.mark.parametrize(("n", "subset", "shift"), [(60, 1000, 0.0), (60, 1000, 0.3), (400, 50, 0.3)])
def test_the_interval_is_as_wide_as_repeated_draws_scatter(n, subset, shift):
    assert 0.7 < stated_over_scatter(n, subset=subset, shift=shift) < 1.8


def test_the_interval_of_equal_distributions_is_too_wide_rather_than_too_narrow_where_few_images_stand_for_many():
    assert 1 < stated_over_scatter(400, subset=50, shift=0) < 3.5


def test_equal_constant_features_have_distance_zero():
    constant = normal_set(10, 4, scale=0, shift=1)
    assert estimate_kernel_distance(constant, constant, ComparisonSettings()) == pytest.approx((0, 0, 0), abs=1e-12)

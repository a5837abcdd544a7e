"""The Frechet distance compared with its closed form."""

import pytest
import torch

from components.evaluation.config import EvaluationConfig
from components.evaluation.measures.frechet import FRECHET_DISTANCE, frechet_distance
from tests.evaluation.random_data import normal_features


def whitened(n, f, seed):
    """(n, f) with mean 0 and covariance exactly 1."""
    x = normal_features(n, f, seed=seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (n - 1))).T


def test_frechet_distance_of_gaussians_with_known_moments():
    shift, first, second = normal_features(4, seed=1), torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 2, 1, 5])
    real, others = whitened(40, 4, 2) * first, whitened(60, 4, 3) * second + shift
    expected = shift.square().sum() + (first - second).square().sum()  # covariances are diagonal, so they commute
    assert frechet_distance(real, others) == pytest.approx(expected.item(), rel=1e-6)
    assert FRECHET_DISTANCE.compute(real, others, EvaluationConfig()) == frechet_distance(real, others)


def test_frechet_distance_of_equal_sets_is_zero_even_with_fewer_images_than_features():
    features = normal_features(10, 30)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-4)

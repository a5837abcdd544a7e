"""Diversity within classes compared with scipy's pairwise distances and with known scales."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from components.evaluation.measures.diversity import WITHIN_CLASS_DIVERSITY
from components.evaluation.measures.kinds import ComparisonSettings
from tests.evaluation.random_data import feature_set, normal_features

SETTINGS = ComparisonSettings()


def classes_of(labels, seed, scale=1.0):
    """Images of classes 10 apart, each with a spread of `scale`."""
    labels = torch.as_tensor(labels)
    return feature_set(normal_features(len(labels), 6, seed=seed) * scale + 10 * labels[:, None], labels=labels)


def compute(real, others, settings=SETTINGS):
    return WITHIN_CLASS_DIVERSITY.compute(real, others, settings)


def test_the_mean_distance_of_pairs_is_scipys_in_unbalanced_classes_of_any_order():
    labels = [0] * 40 + [1] * 5 + [2] * 12
    real, others = classes_of(labels, 0), classes_of(labels[::-1], 1, scale=0.5)
    means = [
        np.mean([pdist(each.features[each.labels == label].double()).mean() for label in range(3)])
        for each in (others, real)
    ]
    assert compute(real, others).value == pytest.approx(means[0] / means[1], rel=1e-9)


def test_a_sampler_that_lost_half_its_variance_in_one_class_is_less_diverse():
    found = compute(classes_of([0] * 300, 0), classes_of([0] * 200, 1, scale=0.5**0.5))
    assert found.value == pytest.approx(0.5**0.5, abs=0.05) and found.low < 0.5**0.5 < found.high


def test_only_classes_with_two_images_in_both_sets_count():
    real = classes_of([0] * 30 + [1] * 30 + [2] + [-1] * 20, 0)
    others = classes_of([0] * 30 + [1] + [2] * 30 + [-1] * 20, 1)
    only = compute(*(feature_set(each.features[:30], labels=each.labels[:30]) for each in (real, others)))
    assert compute(real, others).value == only.value
    assert math.isnan(compute(classes_of([0, 1], 0), classes_of([0, 1], 1)).value)
    assert math.isnan(compute(classes_of([0, 0], 0, scale=0), classes_of([0, 0], 1)).value)


def test_the_interval_is_as_wide_as_repeated_draws_scatter():
    labels = [0] * 50 + [1] * 30
    repeated = [compute(classes_of(labels, seed), classes_of(labels, seed + 999, scale=0.7)) for seed in range(80)]
    scatter = np.std([each.value for each in repeated], ddof=1)
    assert 0.75 < np.mean([each.high - each.low for each in repeated]) / (2 * 1.96) / scatter < 1.35


def test_images_without_labels_are_refused():
    labelled, unlabelled = classes_of([0, 0], 0), classes_of([-1, -1], 1)
    for real, others in ((labelled, unlabelled), (unlabelled, labelled)):
        assert "needs labels" in WITHIN_CLASS_DIVERSITY.refuses(real, others, SETTINGS)

"""The inception score of known probabilities, and compared with scipy and torchmetrics."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from torch import nn
from torchmetrics.image.inception import InceptionScore

from components.evaluation.measures.inception_score import INCEPTION_SCORE
from components.evaluation.measures.kinds import ComparisonSettings
from tests.evaluation.random_data import feature_set, normal_features


def score(probabilities, **settings):
    given = feature_set(torch.zeros(len(probabilities), 2), probabilities=probabilities.float())
    return INCEPTION_SCORE.compute(given, given, ComparisonSettings(**settings))


def test_clear_images_of_all_classes_score_their_number_and_unclear_ones_score_one():
    assert score(torch.eye(5).repeat(20, 1), splits=1).value == pytest.approx(5)
    assert score(torch.full((100, 5), 0.2)).value == pytest.approx(1)
    assert score(torch.eye(5)[[3] * 100]).value == pytest.approx(1)  # clear, all of one class


def test_splits_are_those_of_the_field():
    probabilities = (2 * normal_features(95, 7)).softmax(dim=1)
    shuffled = probabilities[np.random.RandomState(2020).permutation(95)].numpy()
    parts = [shuffled[i * 95 // 10 : (i + 1) * 95 // 10] for i in range(10)]
    expected = np.mean([np.exp(rel_entr(part, part.mean(0)).sum(1).mean()) for part in parts])
    assert score(probabilities).value == pytest.approx(expected, rel=1e-6)


class GivenLogits(nn.Module):
    """In place of the network that torchmetrics expects: returns the given logits unchanged."""

    def forward(self, logits):
        return logits


def test_the_score_is_that_of_torchmetrics():
    logits = 3 * normal_features(200, 6)
    metric = InceptionScore(feature=GivenLogits(), splits=1)
    metric.update(logits)
    assert score(logits.softmax(dim=1), splits=1).value == pytest.approx(metric.compute()[0].item(), rel=1e-5)


def test_the_interval_is_as_wide_as_repeated_draws_scatter():
    repeated = [score((2 * normal_features(300, 6, seed=seed)).softmax(dim=1)) for seed in range(80)]
    scatter = np.std([each.value for each in repeated], ddof=1)
    assert 0.75 < np.mean([each.high - each.low for each in repeated]) / (2 * 1.96) / scatter < 1.35


def test_fewer_images_than_splits_are_refused():
    with pytest.raises(ValueError, match="splits=10 images, got 9"):
        score(torch.eye(9))

"""Precision and recall compared with a direct implementation of their definition."""

import pytest

from components.evaluation.config import EvaluationConfig
from components.evaluation.measures import distances
from components.evaluation.measures.neighbours import PRECISION, RECALL, fraction_among
from tests.evaluation.random_data import normal_features


def slow_fraction_among(points, members, k):
    count = 0
    for point in points:
        for member in members:
            radius = sorted((member - other).norm().item() for other in members)[k]
            if (point - member).norm().item() <= radius:
                count += 1
                break
    return count / len(points)


def test_precision_and_recall_agree_with_the_definition(monkeypatch):
    monkeypatch.setattr(distances, "ROWS_PER_CHUNK", 7)
    real, others = normal_features(30, 3), normal_features(20, 3, seed=1) + 1.5
    expected = slow_fraction_among(others, real, 3), slow_fraction_among(real, others, 3)
    config = EvaluationConfig(neighbours=3)
    computed = [measure.compute(real, others, config) for measure in (PRECISION, RECALL)]
    assert computed == pytest.approx(expected)
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


@pytest.mark.parametrize("sizes", [(10, 3), (3, 10)])
def test_too_few_images_for_neighbours_are_refused(sizes):
    points, members = (normal_features(size, 2) for size in sizes)
    with pytest.raises(ValueError, match="more than neighbours=3 images, got 3"):
        fraction_among(points, members, 3)

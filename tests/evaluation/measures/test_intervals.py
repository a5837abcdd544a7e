"""Bootstrap intervals of means, compared with the standard error."""

import pytest

from components.evaluation.measures.intervals import estimate_mean
from components.evaluation.measures.kinds import ComparisonSettings
from tests.evaluation.random_data import normal_features


def test_the_interval_of_a_mean_is_196_standard_errors_wide_on_either_side():
    values = normal_features(400) * 3 + 5
    low_to_high = estimate_mean(values, ComparisonSettings(bootstrap=2000))
    assert low_to_high.value == pytest.approx(values.mean().item())
    expected = 1.96 * values.std().item() / 20
    assert low_to_high.high - low_to_high.value == pytest.approx(expected, rel=0.06)
    assert low_to_high.value - low_to_high.low == pytest.approx(expected, rel=0.06)

"""The names under which figures are tracked, and the interval of a share."""

import re

import pytest
from scipy.stats import binomtest

from components.evaluation.scores import share_figure
from tests.evaluation.scores_example import example_scores


@pytest.mark.parametrize(("right", "count"), [(0, 40), (1, 5), (93, 100), (982, 1000), (187, 187)])
def test_the_interval_of_a_share_is_scipy_s(right, count):
    figure = share_figure(right / count, count)
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert (figure.low, figure.high) == pytest.approx((expected.low, expected.high), abs=1e-4)
    assert figure.low < figure.high and figure.low <= figure.value <= figure.high


def test_figures_have_names_that_trackers_accept_and_values_that_are_numbers():
    figures = example_scores().figures()
    assert all(re.fullmatch(r"[\w./]+", name) and isinstance(value, float) for name, value in figures.items())


def test_figures_of_all_sets_and_shares_are_tracked():
    figures = example_scores().figures()
    assert figures["judge_accuracy/before"] == 0.8 and figures["judge_accuracy/after"] == 1.0
    assert figures["recall/before"] == 0.7 and figures["recall/after"] == 0.6 and figures["recall/real"] == 0.9
    assert figures["inception/recall/reconstructions"] == 0.8 and figures["kept_0.5/accuracy"] == 1.0
    assert figures["nats_per_code/top/test"] == 1.2
    assert figures["classification_accuracy_score/real_images_top_5"] == 0.99


def test_refused_figures_and_missing_parts_are_left_out():
    figures = example_scores(recognition=None, classification=()).figures()
    assert not [name for name in figures if "frechet" in name or "accuracy" in name]

"""The charts: positions of the values, and labels on the side away from the other line."""

import dataclasses

import pytest

from components.evaluation.chart import BOTTOM, LEFT, RIGHT, TOP, quality_charts, trade_off_chart
from components.evaluation.scores import Figure, Recognition
from tests.evaluation.scores_example import example_scores, feature_scores


def scores_with(accuracies, recalls, shares):
    recognition = Recognition(
        curve=tuple(Figure(value=value) for value in accuracies),
        real=Figure(value=1.0),
        reconstructions=Figure(value=1.0),
        classes=(),
    )
    curve = tuple({**feature_scores("judge").floor, "recall": Figure(value=value)} for value in recalls)
    features = dataclasses.replace(feature_scores("judge"), curve=curve)
    return example_scores(recognition=recognition, features=(features,), shares=shares, keep=shares[-1])


def test_points_lie_between_the_ticks_and_labels_away_from_each_other():
    chart = trade_off_chart(scores_with((0.8, 1.0), (0.9, 0.5), (1.0, 0.25)))
    recognised, recall = chart.lines[0], next(line for line in chart.lines if line.name == "Recall")
    assert [tick[1] for tick in chart.ticks] == ["40%", "55%", "70%", "85%", "100%"]
    assert chart.ticks[0][0] == BOTTOM and chart.ticks[-1][0] == TOP
    assert recognised.points[1].y == TOP
    assert recall.points[1].y == pytest.approx(BOTTOM - (BOTTOM - TOP) * (0.5 - 0.4) / 0.6, abs=0.1)
    assert recognised.points[0].label_y > recognised.points[0].y
    assert [column[1] for column in chart.columns] == ["100%", "25%"]
    assert all(LEFT < column[0] < RIGHT for column in chart.columns)


def test_the_lowest_line_is_never_below_zero():
    assert trade_off_chart(scores_with((0.05,), (0.0,), (1.0,))).ticks[0][1] == "0%"


def test_without_classes_the_measures_alone_are_drawn():
    lines = trade_off_chart(example_scores(recognition=None)).lines
    assert "Recognised" not in [line.name for line in lines] and lines


def test_quality_is_drawn_over_diversity_for_every_extractor_unless_a_figure_is_refused():
    charts = quality_charts(example_scores())
    assert [chart.title.split(", ")[-1] for chart in charts] == ["features: judge", "features: inception"]
    assert all("over Recall" in chart.title for chart in charts)  # the Frechet distance is refused
    (line,) = charts[0].lines
    assert [point.label for point in line.points] == ["100%", "50%"]
    assert all(LEFT < point.x < RIGHT and TOP < point.y < BOTTOM for point in line.points)
    assert line.points[0].x > line.points[1].x  # recall falls with the share

"""The trade-off chart: positions of the values, and labels on the side away from the other line."""

from types import SimpleNamespace

import pytest

from components.evaluation.chart import BOTTOM, LEFT, RIGHT, TOP, trade_off_chart


def curve(*points):
    """Scores with a curve of (share, accuracy, recall) points."""
    return SimpleNamespace(
        curve=[
            SimpleNamespace(share=share, accuracy=accuracy, fidelity={"recall": recall})
            for share, accuracy, recall in points
        ]
    )


def test_points_lie_between_the_ticks_and_labels_away_from_each_other():
    chart = trade_off_chart(curve((1.0, 0.8, 0.9), (0.25, 1.0, 0.5)))
    recognised, recall = chart.lines
    assert [tick[1] for tick in chart.ticks] == ["40%", "55%", "70%", "85%", "100%"]
    assert chart.ticks[0][0] == BOTTOM and chart.ticks[-1][0] == TOP
    assert recognised.points[1].y == TOP
    assert recall.points[1].y == pytest.approx(BOTTOM - (BOTTOM - TOP) * (0.5 - 0.4) / 0.6, abs=0.1)
    assert recognised.points[0].label_y > recognised.points[0].y and recall.points[0].label_y < recall.points[0].y
    assert [share[1] for share in chart.shares] == ["100%", "25%"]
    assert all(LEFT < share[0] < RIGHT for share in chart.shares)


def test_the_lowest_line_is_never_below_zero():
    assert trade_off_chart(curve((1.0, 0.05, 0.0))).ticks[0][1] == "0%"

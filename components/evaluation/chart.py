"""The trade-off curve as coordinates of a drawing; the report's template draws it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from components.evaluation.measures import registered
from components.evaluation.scores import Scores

WIDTH, HEIGHT = 480, 260
"""Size of the drawing in its own units, about pixels."""
LEFT, RIGHT, TOP, BOTTOM = 44.0, 470.0, 24.0, 208.0
"""Edges of the area with the curves; the rest holds the labels of the axes."""
TICKS = 5
"""Horizontal lines, from the lowest value drawn up to 1."""
BASE_STEP = 0.2
"""The lowest value drawn is a multiple of this, at least half a step below the lowest point, but not below 0."""
LABEL_ABOVE, LABEL_BELOW = -11, 21
"""Vertical distance from a point to the baseline of its label."""
LOWEST_LABEL = BOTTOM + 8
"""Lowest baseline of a label: a lower one would overlap the labels of the axis."""


class ChartPoint(NamedTuple):
    """One point of a line."""

    x: float
    y: float
    label_y: float
    """Baseline of the label."""
    label: str


class ChartLine(NamedTuple):
    """One curve."""

    name: str
    points: list[ChartPoint]


class TradeOffChart(NamedTuple):
    """Coordinates and labels of everything in the chart."""

    shares: list[tuple[float, str]]
    """x and label of each share, largest first."""
    ticks: list[tuple[float, str]]
    """y and label of each horizontal line."""
    lines: list[ChartLine]


def trade_off_chart(scores: Scores) -> TradeOffChart:
    """Accuracy, and the measures that are charted, over the shares of the curve."""
    curve = scores.curve
    values = {"Recognised": [point.accuracy for point in curve]} | {
        measure.title: [point.fidelity[measure.name] for point in curve]
        for measure in registered.FEATURE_MEASURES
        if measure.charted
    }
    base = _base(min(min(series) for series in values.values()))
    # x at the centres of equally wide columns, one per share
    xs = [round(LEFT + (RIGHT - LEFT) * (index + 0.5) / len(curve), 1) for index in range(len(curve))]
    columns = list(zip(*values.values(), strict=True))  # per share: the value of every line
    return TradeOffChart(
        shares=[(x, f"{point.share:.0%}") for x, point in zip(xs, curve, strict=True)],
        ticks=[
            (_y(value, base), f"{value:.0%}")
            for value in (base + (1 - base) * index / (TICKS - 1) for index in range(TICKS))
        ],
        lines=[
            ChartLine(
                name, [_point(x, value, column, base) for x, value, column in zip(xs, series, columns, strict=True)]
            )
            for name, series in values.items()
        ],
    )


def _base(lowest: float) -> float:
    return max(0.0, math.floor(lowest / BASE_STEP - 0.5) * BASE_STEP)  # value at the lower edge


def _y(value: float, base: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * (value - base) / (1 - base), 1)  # y grows downwards


def _point(x: float, value: float, column: Sequence[float], base: float) -> ChartPoint:
    """A point; the highest line at `x` has its label above, the others below, so that labels do not cross lines."""
    y = _y(value, base)
    above = value == max(column) or y + LABEL_BELOW > LOWEST_LABEL
    return ChartPoint(x, y, y + (LABEL_ABOVE if above else LABEL_BELOW), f"{value:.1%}")

"""The curves of section 3.3 as coordinates of drawings; the report's template draws them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from components.evaluation.measures import registered
from components.evaluation.scores import FeatureScores, Scores

WIDTH, HEIGHT = 480, 260
"""Size of a drawing in its own units, about pixels."""
LEFT, RIGHT, TOP, BOTTOM = 54.0, 470.0, 24.0, 208.0
"""Edges of the area with the curves; the rest holds the labels of the axes."""
TICKS = 5
"""Lines of a scale, its ends included."""
BASE_STEP = 0.2
"""The lowest value drawn is a multiple of this, at least half a step below the lowest point, but not below 0."""
LABEL_ABOVE, LABEL_BELOW = -11, 21
"""Vertical distance from a point to the baseline of its label."""
LOWEST_LABEL = BOTTOM + 8
"""Lowest baseline of a label: a lower one would overlap the labels of the axis."""
MARGIN_SHARE = 0.12
"""Room between the outermost points and the edges, as a fraction of the range of values."""
CURVES = (("recall", "precision"), ("frechet_distance", "inception_score"))
"""Pairs of measures (x, y) that are drawn against each other as the kept share falls: quality against diversity, as in
the paper's figures 7 and 8."""


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


class Chart(NamedTuple):
    """Coordinates and labels of everything in a drawing."""

    title: str
    x_title: str
    columns: list[tuple[float, str]]
    """x and label of each tick below the drawing."""
    ticks: list[tuple[float, str]]
    """y and label of each horizontal line."""
    lines: list[ChartLine]


def trade_off_chart(scores: Scores) -> Chart | None:
    """Accuracy, and the measures that are charted, over the shares; None where none of them has a value."""
    series = {} if scores.recognition is None else {"Recognised": [point.value for point in scores.recognition.curve]}
    series |= {
        measure.title: [figures[measure.name].value for figures in scores.features[0].curve]
        for measure in registered.FEATURE_MEASURES
        if measure.charted
    }
    values = {name: [value for value in row if value is not None] for name, row in series.items() if None not in row}
    if not values:
        return None
    base = _base(min(min(row) for row in values.values()))
    # x at the centres of equally wide columns, one per share
    count = len(scores.shares)
    xs = [round(LEFT + (RIGHT - LEFT) * (index + 0.5) / count, 1) for index in range(count)]
    columns = list(zip(*values.values(), strict=True))  # per share: the value of every line
    return Chart(
        title="",
        x_title="share of the draw that is kept",
        columns=[(x, f"{share:.0%}") for x, share in zip(xs, scores.shares, strict=True)],
        ticks=[
            (_y(value, base, 1.0), f"{value:.0%}")
            for value in (base + (1 - base) * index / (TICKS - 1) for index in range(TICKS))
        ],
        lines=[
            ChartLine(name, [_point(x, value, column, base) for x, value, column in zip(xs, row, columns, strict=True)])
            for name, row in values.items()
        ],
    )


def quality_charts(scores: Scores) -> list[Chart]:
    """One drawing for each pair of CURVES and each extractor whose values are all there."""
    found = [_quality_chart(features, scores.shares, x, y) for features in scores.features for x, y in CURVES]
    return [chart for chart in found if chart is not None]


def _quality_chart(features: FeatureScores, shares: Sequence[float], x: str, y: str) -> Chart | None:
    measures = {measure.name: measure for measure in registered.FEATURE_MEASURES}
    pairs = [(figures[x].value, figures[y].value) for figures in features.curve]
    values = [
        (horizontal, vertical) for horizontal, vertical in pairs if horizontal is not None and vertical is not None
    ]
    if len(values) < max(2, len(pairs)):
        return None
    (x_low, x_high), (y_low, y_high) = (_range([pair[axis] for pair in values]) for axis in (0, 1))
    points = []
    for share, (horizontal, vertical) in zip(shares, values, strict=True):
        across = round(LEFT + (RIGHT - LEFT) * (horizontal - x_low) / (x_high - x_low), 1)
        height = _y(vertical, y_low, y_high)
        points.append(ChartPoint(across, height, height + LABEL_ABOVE, f"{share:.0%}"))
    x_ticks, y_ticks = (
        [low + (high - low) * index / (TICKS - 1) for index in range(TICKS)]
        for low, high in ((x_low, x_high), (y_low, y_high))
    )
    return Chart(
        title=f"{measures[y].title} over {measures[x].title}, features: {features.extractor}",
        x_title=f"{measures[x].title}; labels: share of the draw that is kept",
        columns=[
            (round(LEFT + (RIGHT - LEFT) * index / (TICKS - 1), 1), measures[x].show(value))
            for index, value in enumerate(x_ticks)
        ],
        ticks=[(_y(value, y_low, y_high), measures[y].show(value)) for value in y_ticks],
        lines=[ChartLine(measures[y].title, points)],
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis: the values with a margin; never empty."""
    low, high = min(values), max(values)
    margin = MARGIN_SHARE * (high - low) or MARGIN_SHARE * (abs(high) or 1.0)
    return low - margin, high + margin


def _base(lowest: float) -> float:
    return max(0.0, math.floor(lowest / BASE_STEP - 0.5) * BASE_STEP)  # value at the lower edge


def _y(value: float, low: float, high: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), 1)  # y grows downwards


def _point(x: float, value: float, column: Sequence[float], base: float) -> ChartPoint:
    """A point; the highest line at `x` has its label above, the others below, so that labels do not cross lines."""
    y = _y(value, base, 1.0)
    above = value == max(column) or y + LABEL_BELOW > LOWEST_LABEL
    return ChartPoint(x, y, y + (LABEL_ABOVE if above else LABEL_BELOW), f"{value:.1%}")

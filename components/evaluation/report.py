"""The evaluation as one page that needs nothing else: figures, pictures, trade-off, lineage."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from components.evaluation.protocol import Evaluation
from components.evaluation.scores import Scores
from components.generator.ancestral import Generator, Samples
from components.pictures import Pixels, prefix_grid, reconstruction_grid, sample_grid
from components.tokenizer.model import Tokenizer, to_images, to_pixels
from components.training.batches import ImageBatch

MAX_CLASSES_IN_GRID = 20
"""Classes shown at most, evenly spread over all."""


@dataclass(frozen=True, kw_only=True)
class ReportPictures:
    """PNGs of the report."""

    before: bytes
    """Samples as drawn, a row a class."""
    after: bytes
    """Samples that rejection kept, a row a class."""
    reconstruction: bytes
    """Held-out images above their reconstructions."""
    levels: bytes
    """Held-out images decoded from the top level, then from more (Figure 3)."""


@dataclass(frozen=True, kw_only=True)
class LineageRow:
    """One artifact that the generator came from."""

    kind: str
    digest: str
    run_id: str
    """MLflow run that made it."""
    url: str = ""
    """Page of that run; empty where there is no server."""


class FigureCard(NamedTuple):
    """One headline figure."""

    name: str
    value: str
    beside: str
    """Its floor or ceiling."""
    meaning: str


class ChartLine(NamedTuple):
    """One curve of the chart: its points in the drawing's units and their values."""

    name: str
    css: str
    points: list[tuple[float, float, float, str]]
    """x, y, the baseline of the label, and the label."""


class TradeOffChart(NamedTuple):
    """The trade-off curve as coordinates; the template draws it."""

    shares: list[tuple[float, str]]
    ticks: list[tuple[float, str]]
    lines: list[ChartLine]


def paint_pictures(evaluation: Evaluation, generator: Generator, held_out: ImageBatch, columns: int) -> ReportPictures:
    """The report's pictures, `columns` images a row."""
    pixels = held_out.pixels[:columns]
    prefixes = _decoded_prefixes(generator.tokenizer, pixels)
    original = pixels.numpy()
    return ReportPictures(
        before=_class_rows(evaluation.before, generator.classes, columns),
        after=_class_rows(evaluation.after, generator.classes, columns),
        reconstruction=reconstruction_grid(original, list(prefixes.values())[-1], columns),
        levels=prefix_grid(original, prefixes),
    )


def render_report(
    *, title: str, scores: Scores, pictures: ReportPictures, lineage: Sequence[LineageRow], config: str
) -> str:
    """The page as HTML. `config` is shown as it is, `lineage` in its order."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "data_uri": _data_uri}
    return environment.get_template("report.html.j2").render(
        title=title,
        scores=scores,
        pictures=pictures,
        lineage=lineage,
        config=config,
        headline=_headline(scores),
        details=_details(scores),
        chart=_chart(scores),
        shown=MAX_CLASSES_IN_GRID,
    )


def _class_rows(samples: Samples, names: Sequence[str], columns: int) -> bytes:
    count = min(MAX_CLASSES_IN_GRID, len(names))
    shown = [index * len(names) // count for index in range(count)]
    rows = {names[label]: samples.pixels[samples.labels == label][:columns].cpu().numpy() for label in shown}
    return sample_grid(rows)


@torch.no_grad()
def _decoded_prefixes(tokenizer: Tokenizer, pixels: Tensor) -> dict[str, Pixels]:
    device = next(tokenizer.parameters()).device
    maps = tokenizer.encode(to_images(pixels.to(device)))
    names = [level.name for level in tokenizer.config.levels]
    return {
        " + ".join(names[:count]): to_pixels(tokenizer.decode_prefix(maps[:count])).cpu().numpy()
        for count in range(1, len(names) + 1)
    }


def _headline(scores: Scores) -> list[FigureCard]:
    reconstructed, real = _percent(scores.reconstructed_accuracy), _percent(scores.real_accuracy)
    ceiling = f"Ceiling: {reconstructed} reconstructions, {real} real images"
    floor = f"Floor: {scores.floor.frechet_distance:.2f} real against real, n = {scores.compared}"
    before, after = scores.before, scores.after
    return [
        FigureCard(
            "Recognised, as drawn",
            _percent(before.accuracy),
            ceiling,
            f"Share of {scores.samples} samples that a judge, which took no part in making them, reads as asked.",
        ),
        FigureCard(
            f"Recognised, best {_percent(scores.kept, 0)} kept",
            _percent(after.accuracy),
            ceiling,
            "The same for as many samples after rejection by another classifier (section 3.3).",
        ),
        FigureCard(
            "Fréchet distance, as drawn",
            f"{before.fidelity.frechet_distance:.2f}",
            floor,
            "FD (features of the judge classifier), not FID: how far samples lie from real images. Lower is better.",
        ),
        FigureCard(
            "Diversity, as drawn",
            _percent(before.fidelity.recall),
            f"Real against real: {_percent(scores.floor.recall)}",
            "Recall: share of real images that lie among the samples in the judge's features.",
        ),
    ]


def _details(scores: Scores) -> list[FigureCard]:
    cards = [
        FigureCard(
            "Quality, as drawn",
            _percent(scores.before.fidelity.precision),
            f"Real against real: {_percent(scores.floor.precision)}",
            "Precision: share of samples that lie among real images in the judge's features.",
        ),
        FigureCard(
            "Newness",
            f"{scores.memorisation:.2f}",
            "1 for images never seen, 0 for copies",
            "Median distance from samples to the nearest training image, over that of held-out images.",
        ),
        FigureCard(
            "Reconstruction",
            f"{scores.psnr:.1f} dB",
            f"Recognised: {_percent(scores.reconstructed_accuracy)}",
            "Peak signal-to-noise ratio of held-out images encoded and decoded: samples can be no sharper.",
        ),
        FigureCard(
            "Code length, bits/dim",
            f"{scores.bits_per_dimension:.3f}",
            "Uncompressed: 8",
            "Prior code length of held-out images, not a pixel likelihood.",
        ),
    ]
    if scores.cas is not None:
        cards.append(
            FigureCard(
                "Classification accuracy score",
                _percent(scores.cas),
                f"Fitted to real images: {_percent(scores.real_accuracy)}",
                "Accuracy on held-out real images of a classifier that was fitted to samples alone.",
            )
        )
    return cards


def _chart(scores: Scores) -> TradeOffChart:
    """Accuracy and recall over the shares, in a drawing 480 wide and 260 high."""
    left, right, top, bottom = 44.0, 470.0, 24.0, 208.0
    curve = scores.curve
    lowest = min(min(point.accuracy, point.fidelity.recall) for point in curve)
    base = max(0.0, math.floor(lowest * 5 - 0.5) / 5)
    xs = [left + (right - left) * (index + 0.5) / len(curve) for index in range(len(curve))]

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * (value - base) / (1 - base), 1)

    def line(name: str, css: str, values: list[float], others: list[float]) -> ChartLine:
        points = []
        for x, value, other in zip(xs, values, others, strict=True):
            label = y(value) - 11 if value >= other else y(value) + 21  # away from the other curve
            points.append((round(x, 1), y(value), label, _percent(value)))
        return ChartLine(name, css, points)

    quality, diversity = [point.accuracy for point in curve], [point.fidelity.recall for point in curve]
    steps = [base + (1 - base) * index / 4 for index in range(5)]
    return TradeOffChart(
        shares=[(round(x, 1), _percent(point.share, 0)) for x, point in zip(xs, curve, strict=True)],
        ticks=[(y(value), _percent(value, 0)) for value in steps],
        lines=[
            line("Recognised (quality)", "quality", quality, diversity),
            line("Recall (diversity)", "diversity", diversity, quality),
        ],
    )


def _percent(value: float, digits: int = 1) -> str:
    return "n/a" if math.isnan(value) else f"{100 * value:.{digits}f}%"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

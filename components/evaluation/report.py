"""The evaluation as one HTML page that needs no other file: figures, pictures, trade-off, lineage."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.evaluation import chart
from components.evaluation.measures import registered
from components.evaluation.protocol import Evaluation
from components.evaluation.scores import Scores
from components.generator.ancestral import Generator
from components.generator.samples import Samples
from components.images.tensors import to_images
from components.pictures import MAX_CLASSES_SHOWN, prefix_grid, reconstruction_grid, sample_grid
from components.tokenizer.prefixes import decode_prefixes
from components.training.batches import ImageBatch


@dataclass(frozen=True, kw_only=True)
class ReportPictures:
    """PNGs of the report."""

    before: bytes
    """Samples as drawn, one row per class."""
    after: bytes
    """Samples that rejection kept, one row per class."""
    reconstruction: bytes
    """Held-out images above their reconstructions."""
    levels: bytes
    """Held-out images decoded from the top level alone, then with each lower level added (figure 3)."""


@dataclass(frozen=True, kw_only=True)
class LineageRow:
    """One artifact that the generator was made from."""

    kind: str
    digest: str
    run_id: str
    """MLflow run that made it."""
    url: str = ""
    """Page of that run; empty when there is no server."""


class FigureCard(NamedTuple):
    """One figure of the report."""

    title: str
    value: str
    reference: str
    """What to compare the value with."""
    meaning: str


def paint_pictures(evaluation: Evaluation, generator: Generator, held_out: ImageBatch, columns: int) -> ReportPictures:
    """The report's pictures, `columns` images per row."""
    pixels = held_out.pixels[:columns]  # (n, h, w, c)
    device = next(generator.tokenizer.parameters()).device
    with torch.no_grad():
        maps = generator.tokenizer.encode(to_images(pixels.to(device)))  # (n, h, w) per level
    prefixes = decode_prefixes(generator.tokenizer, maps)
    original, reconstruction = pixels.numpy(), list(prefixes.values())[-1]
    return ReportPictures(
        before=_class_rows(evaluation.before, generator.classes, columns),
        after=_class_rows(evaluation.after, generator.classes, columns),
        reconstruction=reconstruction_grid(original, reconstruction, columns),
        levels=prefix_grid(original, prefixes),
    )


def render_report(
    *, title: str, scores: Scores, pictures: ReportPictures, lineage: Sequence[LineageRow], settings: str
) -> str:
    """The page as HTML. `settings` is shown as it is, `lineage` in its order."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name raises instead of printing nothing
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "thousands": "{:,}".format, "data_uri": _data_uri}
    return environment.get_template("report.html.j2").render(
        title=title,
        scores=scores,
        pictures=pictures,
        lineage=lineage,
        settings=settings,
        headline=_headline_cards(scores),
        details=_detail_cards(scores),
        measures=registered.FEATURE_MEASURES,
        chart=chart,
        trade_off=chart.trade_off_chart(scores),
        shown_classes=min(MAX_CLASSES_SHOWN, len(scores.classes)),
    )


def _class_rows(samples: Samples, names: Sequence[str], columns: int) -> bytes:
    """One row per class; at most MAX_CLASSES_SHOWN classes, evenly spread."""
    count = min(MAX_CLASSES_SHOWN, len(names))
    shown = [index * len(names) // count for index in range(count)]  # class numbers
    rows = {names[label]: samples.pixels[samples.labels == label][:columns].numpy() for label in shown}
    return sample_grid(rows)


# --- cards ------------------------------------------------------------------------------------------------------------


def _headline_cards(scores: Scores) -> list[FigureCard]:
    reached = (
        f"Reconstructions: {_percent(scores.reconstructed_accuracy)}; real images: {_percent(scores.real_accuracy)}"
    )
    drawn = FigureCard(
        "Recognised, as drawn",
        _percent(scores.before.accuracy),
        reached,
        f"Fraction of {scores.samples:,} samples that the judge recognises as the requested class. The judge is a "
        "classifier that took no part in making them.",
    )
    kept = FigureCard(
        f"Recognised, best {_percent(scores.keep, 0)} kept",
        _percent(scores.after.accuracy),
        reached,
        "The same for as many samples after rejection by another classifier (section 3.3).",
    )
    return [drawn, kept, *_feature_cards(scores, headline=True)]


def _detail_cards(scores: Scores) -> list[FigureCard]:
    values = scores.generator_measures
    return [
        *_feature_cards(scores, headline=False),
        *(
            FigureCard(measure.title, measure.show(values[measure.name]), measure.reference(scores), measure.meaning)
            for measure in registered.GENERATOR_MEASURES
            if measure.name in values
        ),
    ]


def _feature_cards(scores: Scores, *, headline: bool) -> list[FigureCard]:
    return [
        FigureCard(
            f"{measure.title}, as drawn",
            measure.show(scores.before.fidelity[measure.name]),
            f"Real against real images: {measure.show(scores.floor[measure.name])}",
            measure.meaning,
        )
        for measure in registered.FEATURE_MEASURES
        if measure.headline == headline
    ]


# --- filters of the template ------------------------------------------------------------------------------------------


def _percent(value: float, digits: int = 1) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}%}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

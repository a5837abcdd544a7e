"""The evaluation as one HTML page that needs no other file: figures, pictures, trade-off, lineage."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.evaluation import chart
from components.evaluation.card import Card, show
from components.evaluation.measures import registered
from components.evaluation.scores import CONFIDENCE, FeatureScores, Figure, Scores, share_figure
from components.pictures import MAX_CLASSES_SHOWN

PERCENT = "{:.1%}"


@dataclass(frozen=True, kw_only=True)
class ReportPictures:
    """PNGs of the report."""

    before: bytes
    """Samples as drawn, one row per class."""
    after: bytes
    """Samples that rejection kept, one row per class."""
    reconstruction: bytes
    """Unseen images above their reconstructions."""
    levels: bytes
    """Unseen images decoded from the top level alone, then with each lower level added (figure 3)."""
    nearest: bytes
    """The samples that are nearest to a training image, above these images."""


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


def render_report(
    *,
    title: str,
    scores: Scores,
    card: Card,
    pictures: ReportPictures,
    lineage: Sequence[LineageRow],
    settings: str,
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
    classes = () if scores.recognition is None else scores.recognition.classes
    return environment.get_template("report.html.j2").render(
        title=title,
        scores=scores,
        card=card,
        show=show,
        confidence=CONFIDENCE,
        pictures=pictures,
        lineage=lineage,
        settings=settings,
        headline=[*_recognition_cards(scores), *_feature_cards(scores.features[0], headline=True)],
        details=[*_feature_cards(scores.features[0], headline=False), *_other_cards(scores)],
        measures=registered.FEATURE_MEASURES,
        figure_text=figure_text,
        chart=chart,
        trade_off=chart.trade_off_chart(scores),
        quality=chart.quality_charts(scores),
        classes=classes,
        shown_classes=min(MAX_CLASSES_SHOWN, len(classes)),
    )


def figure_text(figure: Figure, value_format: str) -> str:
    """The value, with half its interval, or 'refused'."""
    return show(vars(figure), value_format)


# --- cards ------------------------------------------------------------------------------------------------------------


def _recognition_cards(scores: Scores) -> list[FigureCard]:
    recognition = scores.recognition
    if recognition is None:
        return []
    reached = (
        f"Real images: {figure_text(recognition.real, PERCENT)}; reconstructions: "
        f"{figure_text(recognition.reconstructions, PERCENT)}"
    )
    drawn = FigureCard(
        "Recognised, as drawn",
        figure_text(recognition.curve[0], PERCENT),
        reached,
        f"Fraction of {scores.samples:,} samples that the judge recognises as the requested class. The judge is a "
        "classifier that took no part in making them.",
    )
    kept = FigureCard(
        f"Recognised, best {_percent(scores.keep, 0)} kept",
        figure_text(recognition.curve[scores.point(scores.keep)], PERCENT),
        reached,
        "The same for as many samples after rejection by another classifier (section 3.3).",
    )
    return [drawn, kept]


def _feature_cards(features: FeatureScores, *, headline: bool) -> list[FigureCard]:
    cards = []
    for measure in registered.FEATURE_MEASURES:
        if measure.headline != headline:
            continue
        drawn, real, decoded = (each[measure.name] for each in (features.curve[0], features.floor, features.ceiling))
        real_text, decoded_text = (figure_text(each, measure.value_format) for each in (real, decoded))
        cards.append(
            FigureCard(
                f"{measure.title}, as drawn",
                figure_text(drawn, measure.value_format),
                drawn.refused or f"Real images: {real_text}; reconstructions: {decoded_text}",
                measure.meaning,
            )
        )
    return cards


def _other_cards(scores: Scores) -> list[FigureCard]:
    memorisation, pictures = scores.memorisation, scores.reconstruction
    psnr = figure_text(pictures.figures["psnr"], "{:.1f} dB")
    ssim = (
        f"SSIM {figure_text(pictures.figures['ssim'], '{:.3f}')}" if "ssim" in pictures.figures else "mean over images"
    )
    cards = [
        FigureCard(
            "Nearer than unseen images",
            figure_text(share_figure(memorisation.copied_share, memorisation.queries), PERCENT),
            "By chance: 1%",
            f"Fraction of {memorisation.queries:,} samples nearer to one of all {memorisation.searched:,} training "
            "images than 99% of the unseen images are. Copies would raise it.",
        ),
        FigureCard(
            "Novelty",
            f"{memorisation.ratio:.2f}",
            "New images: 1; copies: 0",
            "Median distance from a sample to the nearest training image, divided by that of unseen images.",
        ),
        FigureCard(
            "Reconstruction",
            psnr,
            ssim,
            f"Peak signal-to-noise ratio, mean over {pictures.images:,} unseen images: samples cannot be sharper.",
        ),
        FigureCard(
            "Code length, bits/dim",
            f"{scores.bits_per_dimension:.3f}",
            "Uncompressed: 8",
            "Bits per number of an unseen image that its codes cost under the priors; not a likelihood of pixels.",
        ),
    ]
    if scores.classification:
        accuracy = {
            score.fitted_to: figure_text(share_figure(score.top_1, scores.unseen), PERCENT)
            for score in scores.classification
        }
        cards.append(
            FigureCard(
                "Classification accuracy score",
                accuracy["samples"],
                f"Fitted to real images: {accuracy['real images']}; to reconstructions: {accuracy['reconstructions']}",
                "Accuracy on unseen real images of a classifier that was fitted to samples alone.",
            )
        )
    return cards


# --- filters of the template ------------------------------------------------------------------------------------------


def _percent(value: float | None, digits: int = 1) -> str:
    return "n/a" if value is None else f"{value:.{digits}%}"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

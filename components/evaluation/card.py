"""The results card: every number that is needed to compare a generator with a paper, as plain values and as a table.

results.json holds the card; `python -m pipeline results` prints it as Markdown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.evaluation.measures import registered
from components.evaluation.published import published_for
from components.evaluation.scores import FeatureScores, Figure, Figures, Scores, share_figure

CARD_FORMAT = 1
IMAGENET_PRESET, IMAGENET_CLASSES, IMAGENET_SIZE = "imagenet256", 1000, 256
"""What a dataset must have for the paper's own figures to stand beside its results."""

Card = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CardContext:
    """What the figures were measured on."""

    title: str
    image_size: int
    """Side in pixels."""
    channels: int
    classes: int
    train_images: int
    """Without augmented copies."""
    seed: int
    sampling: Mapping[str, float | int]
    """How codes were drawn."""
    generator: str
    """Digest."""
    dataset: str
    """Digest of the snapshot."""


def results_card(scores: Scores, context: CardContext) -> dict[str, Any]:
    """The card as plain values."""
    comparisons = [] if scores.recognition is None else [_recognition_entry(scores)]
    for features in scores.features:
        comparisons += list(_feature_entries(features, scores))
    like_imagenet = context.classes == IMAGENET_CLASSES and context.image_size == IMAGENET_SIZE
    return {
        "format": CARD_FORMAT,
        "context": {
            **asdict(context),
            "samples": scores.samples,
            "keep": scores.keep,
            "rejection": scores.rejection,
            "unseen_split": scores.split,
            "unseen_images": scores.unseen,
        },
        "comparisons": comparisons,
        "single": list(_single_entries(scores)),
        "published": [asdict(each) for each in published_for(IMAGENET_PRESET)] if like_imagenet else [],
    }


def _recognition_entry(scores: Scores) -> dict[str, Any]:
    recognition = scores.recognition
    assert recognition is not None
    sets = {
        "drawn": recognition.curve[0],
        "kept": recognition.curve[scores.point(scores.keep)],
        "reconstructions": recognition.reconstructions,
        "real": recognition.real,
    }
    return {
        "figure": "Recognised by the judge",
        "measure": "judge_accuracy",
        "features": "judge",
        "images": scores.samples,
        "unseen_images": scores.unseen,
        "format": "{:.1%}",
        "sets": {name: asdict(figure) for name, figure in sets.items()},
    }


def _feature_entries(features: FeatureScores, scores: Scores) -> Iterator[dict[str, Any]]:
    sets: dict[str, Figures] = {
        "drawn": features.curve[0],
        "kept": features.curve[scores.point(scores.keep)],
        "reconstructions": features.ceiling,
        "real": features.floor,
    }
    for measure in registered.FEATURE_MEASURES:
        yield {
            "figure": measure.title,
            "measure": measure.name,
            "features": features.extractor,
            "digest": features.digest,
            "preprocessing": features.preprocessing,
            "statistics": features.statistics,
            "feature_count": features.features,
            "images": features.compared,
            "reference_images": features.reference,
            "format": measure.value_format,
            "sets": {name: asdict(figures[measure.name]) for name, figures in sets.items()},
        }


def _single_entries(scores: Scores) -> Iterator[dict[str, Any]]:
    titles = {
        "psnr": ("Reconstruction, PSNR (mean over images)", "{:.2f} dB"),
        "ssim": ("Reconstruction, SSIM", "{:.3f}"),
        "squared_error": ("Reconstruction, mean squared error of images in [-1, 1]", "{:.4f}"),
        "lpips": ("Reconstruction, LPIPS", "{:.3f}"),
    }
    for name, figure in scores.reconstruction.figures.items():
        title, value_format = titles[name]
        yield _single(name, title, figure, value_format, f"{scores.reconstruction.images:,} {scores.split} images")
    for level in scores.likelihood:
        for split in ("train", "held_out", "test"):
            value = getattr(level, split)
            if value is not None:
                title, note = f"Nats per code, {level.level} level", f"{split.replace('_', ' ')} images"
                yield _single(f"nats_per_code/{level.level}/{split}", title, Figure(value=value), "{:.3f}", note)
    bits = Figure(value=scores.bits_per_dimension)
    yield _single("bits_per_dimension", "Code length, bits per dimension", bits, "{:.3f}", "not a likelihood of pixels")
    for score in scores.classification:
        name, note = score.fitted_to.replace(" ", "_"), f"{score.images:,} images, {scores.unseen:,} to measure"
        title = f"Classification accuracy score, {score.fitted_to}"
        top_1 = share_figure(score.top_1, scores.unseen)
        yield _single(f"classification_accuracy_score/{name}", f"{title}, top 1", top_1, "{:.1%}", note)
        if score.top_5 is not None:
            top_5 = share_figure(score.top_5, scores.unseen)
            yield _single(f"classification_accuracy_score/{name}_top_5", f"{title}, top 5", top_5, "{:.1%}", note)
    memorisation = scores.memorisation
    searched = f"{memorisation.queries:,} samples among {memorisation.searched:,} training images"
    copied = share_figure(memorisation.copied_share, memorisation.queries)
    yield _single(
        "memorisation/copied_share",
        "Samples nearer than 99% of unseen images",
        copied,
        "{:.1%}",
        f"{searched}; by chance 1%",
    )
    yield _single(
        "memorisation/ratio",
        "Distance to training images over that of unseen images",
        Figure(value=memorisation.ratio),
        "{:.2f}",
        f"{searched}; new images: 1, copies: 0",
    )


def _single(name: str, title: str, figure: Figure, value_format: str, note: str) -> dict[str, Any]:
    return {"measure": name, "figure": title, "format": value_format, "note": note, **asdict(figure)}


# --- as a table -------------------------------------------------------------------------------------------------------


def show(entry: Mapping[str, Any], value_format: str) -> str:
    """A stored Figure as text: the value with half its interval, or 'refused'."""
    if entry["value"] is None:
        return "refused" if entry["refused"] else "n/a"
    text = value_format.format(entry["value"])
    if entry["low"] is None or entry["high"] is None:
        return text
    return f"{text} ± {value_format.format((entry['high'] - entry['low']) / 2).removesuffix(' dB')}"


def markdown_table(card: Card) -> str:
    """The card as two Markdown tables, with the reasons of refused figures below."""
    context = card["context"]
    kept = f"best {context['keep']:.0%} kept"
    header = ("figure", "features", "as drawn", kept, "reconstructions", "real images", "images of each set")
    rows = [
        (
            entry["figure"],
            entry["features"],
            *(show(entry["sets"][name], entry["format"]) for name in ("drawn", "kept", "reconstructions", "real")),
            _images_text(entry),
        )
        for entry in card["comparisons"]
    ]
    single = [(entry["figure"], show(entry, entry["format"]), entry["note"]) for entry in card["single"]]
    tables = [_table(header, rows), _table(("figure", "value", "measured on"), single)]
    if card["published"]:
        columns = ("measure", "value", "source", "note")
        published = [tuple(str(each[column]) for column in columns) for each in card["published"]]
        tables.append(_table(("the paper's figure", "value", "source", "note"), published))
    return "\n\n".join([*tables, *_refusals(card)])


def _images_text(entry: Mapping[str, Any]) -> str:
    """How many images are behind the figures of a comparison."""
    text = f"{entry['images']:,}"
    return f"{text}; real ones {entry['unseen_images']:,}" if "unseen_images" in entry else text


def _refusals(card: Card) -> list[str]:
    """Each reason once."""
    reasons = {
        f"{entry['figure']} ({entry['features']}): {figure['refused']}"
        for entry in card["comparisons"]
        for figure in entry["sets"].values()
        if figure["refused"]
    }
    return ["Refused: " + "; ".join(sorted(reasons)) + "."] if reasons else []


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

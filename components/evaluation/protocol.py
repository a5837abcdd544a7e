"""The evaluation of one generator in its order: draw, describe, compare, search, fit.

The judge took no part in making samples or in rejection. Every figure stands beside the value of real images (the
floor) and of reconstructions (the ceiling), measured on equally many images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from components.evaluation.classification_score import (
    DrawnSamples,
    RealImages,
    Reconstructions,
    classification_scores,
)
from components.evaluation.compare import Comparison, compare_sets
from components.evaluation.config import EvaluationConfig
from components.evaluation.describe import QuerySet
from components.evaluation.draws import DrawPlan, evenly, plan_draws
from components.evaluation.features.config import FeaturesConfig
from components.evaluation.image_sets import (
    ImageSet,
    RealSet,
    describe_images,
    draw_samples,
    halves_of_training,
)
from components.evaluation.laboratory import Laboratory
from components.evaluation.measures.bits import bits_per_dimension
from components.evaluation.measures.kinds import ComparisonSettings
from components.evaluation.memorisation_search import SearchResult, search_training
from components.evaluation.scores import (
    NORMAL_95,
    ClassificationScore,
    ClassScore,
    FeatureScores,
    Figure,
    LevelLikelihood,
    Recognition,
    Reconstruction,
    Scores,
    share_figure,
)
from components.images.snapshot import Snapshot, label_numbers
from components.images.split import TRAIN
from components.priors.config import SamplingConfig

MAX_QUERIES = 5000
"""Largest number of samples, and of unseen images, whose nearest training image is sought."""


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """One extractor of features, as the report names it."""

    name: str
    digest: str
    preprocessing: str
    program: FeaturesConfig | None
    """Settings of a user's extractor; None for the judge."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured: the generator and what is known about it before anything is drawn."""

    classes: tuple[str, ...]
    """Names of the classes; none where the images have no labels."""
    sampling: SamplingConfig
    """How the generator draws by default."""
    rejection: str
    """'' or why rejection is off."""
    split: str
    """Split of the images that nothing was fitted to."""
    likelihood: tuple[LevelLikelihood, ...]
    codes_per_image: tuple[int, ...]
    """Codes of each level, top first."""
    images: str
    """URI of the snapshot."""
    codes: str
    """URI of the code dataset."""
    tokenizer: str
    """URI."""
    judge_knows_classes: bool
    extractors: tuple[Extractor, ...]
    """The judge first."""


class Evaluation(NamedTuple):
    """All figures, and what the pictures show."""

    scores: Scores
    plan: DrawPlan
    samples: ImageSet
    search: SearchResult
    queries: np.ndarray
    """Positions int64 (q,) of the samples that were sought."""


def evaluate(laboratory: Laboratory, subject: Subject) -> Evaluation:
    """Measure a generator; the order of the steps is that of their figures in the report."""
    config, snapshot = laboratory.config, laboratory.snapshot
    plan = plan_draws(class_sizes(snapshot, len(subject.classes)), config)
    halves = halves_of_training(snapshot, config.real_images)
    samples = draw_samples(laboratory, plan, subject.sampling)
    reference = describe_images(laboratory, "reference", halves[0], reconstruct=False)
    others = describe_images(laboratory, "other", halves[1], reconstruct=True)
    unseen = describe_images(laboratory, "unseen", snapshot.sample(subject.split, config.real_images), reconstruct=True)
    kept = {share: plan.kept(samples.rows["probability"], share) for share in config.curve}
    queries = evenly(kept[1.0], MAX_QUERIES)
    search = search_training(
        laboratory,
        QuerySet(samples.folder, tuple(queries.tolist())),
        QuerySet(unseen.images.folder, tuple(range(min(MAX_QUERIES, len(unseen.images))))),
    )
    scores = Scores(
        samples=plan.samples,
        shares=config.curve,
        keep=config.keep,
        rejection=subject.rejection,
        split=subject.split,
        unseen=len(unseen.images),
        recognition=recognition(subject, samples, kept, unseen, config) if subject.judge_knows_classes else None,
        features=_feature_scores(laboratory, subject, samples, kept, reference, others),
        reconstruction=_reconstruction(unseen),
        likelihood=subject.likelihood,
        bits_per_dimension=_bits(subject, snapshot),
        memorisation=search.figures,
        classification=_classification(laboratory, subject, samples, kept) if subject.judge_knows_classes else (),
    )
    return Evaluation(scores, plan, samples, search, queries)


def class_sizes(snapshot: Snapshot, classes: int) -> list[int]:
    """Training images of each class, without copies; their number alone where there are no classes."""
    rows = snapshot.originals(TRAIN)
    return [rows.num_rows] if classes == 0 else np.bincount(label_numbers(rows), minlength=classes).tolist()


# --- recognition ------------------------------------------------------------------------------------------------------


def recognition(
    subject: Subject, samples: ImageSet, kept: dict[float, np.ndarray], unseen: RealSet, config: EvaluationConfig
) -> Recognition:
    """How often the judge recognises the class, of samples at each share, of unseen images and reconstructions."""
    right = _recognised(samples)
    right_real = _recognised(unseen.images)
    assert unseen.reconstructions is not None
    before, after = kept[1.0], kept[config.keep]
    of_samples, of_real = samples.rows["labels"].numpy(), unseen.images.rows["labels"].numpy()
    return Recognition(
        curve=tuple(_share(right[positions]) for positions in kept.values()),
        real=_share(right_real),
        reconstructions=_share(_recognised(unseen.reconstructions)),
        classes=tuple(
            ClassScore(
                name=name,
                before=_mean(right[before][of_samples[before] == label]),
                after=_mean(right[after][of_samples[after] == label]),
                real=_mean(right_real[of_real == label]),
            )
            for label, name in enumerate(subject.classes)
        ),
    )


def _recognised(images: ImageSet) -> np.ndarray:
    """bool (n,)."""
    return (images.rows["judged"] == images.rows["labels"]).numpy()


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _share(right: np.ndarray) -> Figure:
    return share_figure(float(right.mean()), len(right))


# --- features ---------------------------------------------------------------------------------------------------------


def _feature_scores(
    laboratory: Laboratory,
    subject: Subject,
    samples: ImageSet,
    kept: dict[float, np.ndarray],
    reference: RealSet,
    others: RealSet,
) -> tuple[FeatureScores, ...]:
    """Every measure of every extractor, all sets with equally many images."""
    config, workspace = laboratory.config, laboratory.workspace
    settings = ComparisonSettings(
        neighbours=config.neighbours, manifold_images=config.manifold_images, seed=workspace.seed
    )
    compared = min(len(kept[1.0]), len(others.images))
    real = evenly(np.arange(len(others.images)), compared)
    assert others.reconstructions is not None
    sets = [samples.take(evenly(positions, compared)) for positions in kept.values()]
    sets += [others.images.take(real), others.reconstructions.take(real)]
    arguments = [(each.name, reference.images.all(), sets, settings, each.program) for each in subject.extractors]
    comparisons: list[Comparison] = laboratory.run_all("comparing", compare_sets, arguments)
    return tuple(
        FeatureScores(
            extractor=extractor.name,
            digest=extractor.digest,
            preprocessing=extractor.preprocessing,
            features=comparison.features,
            compared=compared,
            reference=len(reference.images),
            statistics=(extractor.program and extractor.program.statistics) or "",
            curve=tuple(comparison.sets[:-2]),
            floor=comparison.sets[-2],
            ceiling=comparison.sets[-1],
        )
        for extractor, comparison in zip(subject.extractors, comparisons, strict=True)
    )


# --- reconstruction and likelihood ------------------------------------------------------------------------------------


def _reconstruction(unseen: RealSet) -> Reconstruction:
    assert unseen.reconstructions is not None
    rows = unseen.reconstructions.rows
    names = [name for name in ("psnr", "ssim", "squared_error", "lpips") if name in rows]
    return Reconstruction(images=len(unseen.images), figures={name: mean_figure(rows[name]) for name in names})


def mean_figure(values: Tensor) -> Figure:
    """The mean of `values` (n,), with the interval of its standard error."""
    mean = values.double().mean().item()
    spread = NORMAL_95 * values.double().std(correction=0).item() / len(values) ** 0.5
    return Figure(value=mean, low=mean - spread, high=mean + spread)


def _bits(subject: Subject, snapshot: Snapshot) -> float:
    nats = [level.held_out if level.test is None else level.test for level in subject.likelihood]
    pixels = snapshot.pixels
    return bits_per_dimension(nats, subject.codes_per_image, pixels.image_size**2 * pixels.channels)


# --- the classification accuracy score --------------------------------------------------------------------------------


def _classification(
    laboratory: Laboratory, subject: Subject, samples: ImageSet, kept: dict[float, np.ndarray]
) -> tuple[ClassificationScore, ...]:
    config, snapshot = laboratory.config, laboratory.snapshot
    if config.cas_updates == 0:
        return ()
    images = min(snapshot.originals(TRAIN).num_rows, len(samples))
    chosen = samples.take(evenly(np.arange(len(samples)), images))  # as drawn: nothing is rejected
    ids = np.sort(np.asarray(snapshot.sample(TRAIN, images)["id"]))
    return classification_scores(
        config,
        {
            "real images": RealImages(subject.images, ids),
            "reconstructions": Reconstructions(subject.codes, ids),
            "samples": DrawnSamples(chosen.folder, chosen.positions, chosen.labels, len(subject.likelihood)),
        },
        images=images,
        snapshot=subject.images,
        split=subject.split,
        judge=laboratory.instruments.judge,
        tokenizer=subject.tokenizer,
        resources=laboratory.resources,
        workspace=laboratory.workspace,
    )

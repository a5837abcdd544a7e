"""The evaluation step: measure a committed generator on the cluster, paint the pictures, write figures and report."""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from components.artifacts import Artifact
from components.classifier.stored import describe_classifier, load_rejector
from components.config import StepResources
from components.evaluation.card import CardContext, results_card
from components.evaluation.config import EvaluationConfig
from components.evaluation.facts import EvaluationFacts
from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.stored import read_program_digest
from components.evaluation.instruments import JUDGE, InstrumentSettings
from components.evaluation.laboratory import Laboratory
from components.evaluation.paint import paint_neighbours, paint_reconstructions, paint_samples
from components.evaluation.protocol import Evaluation, Extractor, Subject, evaluate
from components.evaluation.report import LineageRow, ReportPictures, render_report
from components.evaluation.scores import LevelLikelihood, Scores
from components.generator.facts import GeneratorFacts
from components.images.snapshot import Snapshot, read_snapshot
from components.images.split import TRAIN
from components.pictures import MAX_CLASSES_SHOWN
from components.priors.facts import PriorFacts
from components.store import commits
from components.tokenizer.stored import describe_tokenizer
from components.workspace import StepOutput, Workspace

NO_REJECTION = "nothing is rejected, because there are fewer than two classes to tell apart"
UNCONDITIONAL_ROWS = 4
"""Rows of samples in a picture where there are no classes."""


def evaluate_generator(
    config: EvaluationConfig,
    inputs: Mapping[str, Artifact],
    *,
    title: str,
    settings: str,
    resources: StepResources,
    workspace: Workspace,
) -> StepOutput:
    """Measure the artifact `generator` of `inputs` against the snapshot `images` with the artifact `judge`.

    `inputs` are all artifacts that the generator was made from; the report lists them and shows `title` and `settings`
    (text). The committed content is scores.json and results.json. report.html is a document of the output, because it
    names MLflow runs, which must not change the artifact's digest.
    """
    snapshot = read_snapshot(inputs["images"].uri)
    rejects = load_rejector(commits.local_copy(inputs["classifier"].uri)) is not None
    if not rejects:
        workspace.progress.say(f"{workspace.name}: {NO_REJECTION}")
        config = dataclasses.replace(config, keep=1.0, shares=(1.0,))
    laboratory = Laboratory(
        config=config,
        instruments=InstrumentSettings(
            generator=inputs["generator"].uri,
            judge=inputs["judge"].uri,
            features=config.features,
            lpips=config.lpips,
            image_size=snapshot.pixels.image_size,
            gpu=resources.gpus > 0,
        ),
        snapshot=snapshot,
        resources=resources,
        workspace=workspace,
    )
    subject = _subject(config, inputs, snapshot, "" if rejects else NO_REJECTION)
    evaluation = evaluate(laboratory, subject)
    scores = evaluation.scores
    card = results_card(scores, _context(inputs, snapshot, subject, title, workspace))
    pictures = _paint(laboratory, subject, evaluation)
    page = render_report(
        title=title,
        scores=scores,
        card=card,
        pictures=pictures,
        lineage=_lineage(inputs, workspace),
        settings=settings,
    )
    contents = {"scores.json": _as_json(scores.figures()), "results.json": _as_json(card)}
    facts = _facts_of(scores)
    return StepOutput(
        digest=workspace.save(contents, facts),
        facts=facts,
        pictures={
            "samples": pictures.before,
            "samples-kept": pictures.after,
            "levels": pictures.levels,
            "nearest": pictures.nearest,
        },
        documents={"report.html": page},
    )


def _as_json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()


def _subject(config: EvaluationConfig, inputs: Mapping[str, Artifact], snapshot: Snapshot, rejection: str) -> Subject:
    tokenizer = describe_tokenizer(commits.local_copy(inputs["tokenizer"].uri))
    levels = [level.name for level in tokenizer.architecture.levels]
    priors = {level: inputs[f"prior_{level}"].read(PriorFacts) for level in levels}
    judge = describe_classifier(commits.local_copy(inputs["judge"].uri))
    classes = snapshot.classes
    return Subject(
        classes=classes,
        sampling=inputs["generator"].read(GeneratorFacts).sampling,
        rejection=rejection,
        split=snapshot.evaluation_split,
        likelihood=tuple(
            LevelLikelihood(
                level=level,
                train=facts.train_nats_per_code,
                held_out=facts.nats_per_code,
                test=facts.test_nats_per_code,
            )
            for level, facts in priors.items()
        ),
        codes_per_image=tuple((tokenizer.image_size // level.stride) ** 2 for level in tokenizer.architecture.levels),
        images=inputs["images"].uri,
        codes=inputs["codes"].uri,
        tokenizer=inputs["tokenizer"].uri,
        judge_knows_classes=judge.task == "classes",
        extractors=(
            Extractor(
                name=JUDGE,
                digest=inputs["judge"].digest,
                preprocessing=f"{tokenizer.image_size} pixels, as decoded; fitted to tell {judge.task} apart",
                program=None,
            ),
            *(
                Extractor(
                    name=each.name,
                    digest=read_program_digest(each),
                    preprocessing=_preprocessing(each),
                    program=each,
                )
                for each in config.features
            ),
        ),
    )


def _preprocessing(features: FeaturesConfig) -> str:
    """How pixels become the extractor's input, for the report and the card."""
    filters = f"{features.resize}, {'antialiased' if features.antialias else 'not antialiased'}"
    size = "sizes as they are" if features.image_size is None else f"{features.image_size} pixels ({filters})"
    low, high = features.value_range
    return f"{size}, values {low:g} to {high:g}, {features.channels} channels"


def _context(
    inputs: Mapping[str, Artifact], snapshot: Snapshot, subject: Subject, title: str, workspace: Workspace
) -> CardContext:
    return CardContext(
        title=title,
        image_size=snapshot.pixels.image_size,
        channels=snapshot.pixels.channels,
        classes=len(subject.classes),
        train_images=snapshot.originals(TRAIN).num_rows,
        seed=workspace.seed,
        sampling=dataclasses.asdict(subject.sampling),
        generator=inputs["generator"].digest,
        dataset=inputs["images"].digest,
    )


# --- pictures ---------------------------------------------------------------------------------------------------------


def _paint(laboratory: Laboratory, subject: Subject, evaluation: Evaluation) -> ReportPictures:
    columns, config = laboratory.config.pictures, laboratory.config
    shown = laboratory.snapshot.gallery(subject.split, columns)
    probability = evaluation.samples.rows["probability"]
    before, after = (
        _sample_rows(subject, evaluation, evaluation.plan.kept(probability, share), columns)
        for share in (1.0, config.keep)
    )
    nearest = evaluation.search.nearest
    closest = np.argsort(nearest.distances, kind="stable")[:columns]  # (k,) of the queries
    folder, settings, reader = evaluation.samples.folder, laboratory.instruments, laboratory.reader
    neighbours = evaluation.search.training.take(pa.array(nearest.rows[closest]))
    tasks = [(settings, folder, before), (settings, folder, after)]
    painted = laboratory.run_all("painting samples", paint_samples, tasks)
    (others,) = laboratory.run_all("painting images", paint_reconstructions, [(settings, reader, shown)])
    (pairs,) = laboratory.run_all(
        "painting neighbours",
        paint_neighbours,
        [(settings, folder, evaluation.queries[closest].tolist(), reader, neighbours)],
    )
    return ReportPictures(before=painted[0], after=painted[1], nearest=pairs, **others)


def _sample_rows(subject: Subject, evaluation: Evaluation, positions: np.ndarray, columns: int) -> dict[str, list[int]]:
    """Positions of the samples in a picture, one row per class; at most MAX_CLASSES_SHOWN classes, evenly spread."""
    if len(subject.classes) <= 1:
        rows = {f"{row + 1}": positions[row * columns : (row + 1) * columns] for row in range(UNCONDITIONAL_ROWS)}
        return {name: row.tolist() for name, row in rows.items() if len(row)}
    labels = evaluation.samples.rows["labels"].numpy()[positions]
    drawn = np.unique(labels)  # a rare class may have no sample
    count = min(MAX_CLASSES_SHOWN, len(drawn))
    chosen = drawn[np.arange(count) * len(drawn) // count]
    return {subject.classes[label]: positions[labels == label][:columns].tolist() for label in chosen}


# --- records ----------------------------------------------------------------------------------------------------------


def _lineage(inputs: Mapping[str, Artifact], workspace: Workspace) -> list[LineageRow]:
    return [
        LineageRow(
            kind=artifact.kind,
            digest=artifact.digest,
            run_id=artifact.run_id,
            url=workspace.models.run_link(artifact.run_id),
        )
        for artifact in inputs.values()
    ]


def _facts_of(scores: Scores) -> EvaluationFacts:
    """The judge's accuracies on real images and on reconstructions are in scores.json and the report only."""
    figures = scores.figures()
    measures = {name.replace("/", "_"): value for name, value in figures.items() if "judge_accuracy/" not in name}
    return EvaluationFacts(
        judge_accuracy=figures.get("judge_accuracy/before"),
        kept_accuracy=figures.get("judge_accuracy/after"),
        keep=scores.keep,
        samples=scores.samples,
        measures=measures,
    )

"""The evaluation step: draw from the generator, side by side on the cluster; measure; write the report."""

import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from components.artifacts import Artifact
from components.classifier.stored import load_classifier
from components.config import StepResources
from components.evaluation.config import EvaluationConfig
from components.evaluation.facts import EvaluationFacts
from components.evaluation.protocol import Evaluation, draws_per_class, evaluate_samples
from components.evaluation.report import LineageRow, paint_pictures, render_report
from components.evaluation.scores import Scores
from components.generator.ancestral import Generator
from components.generator.step import draw_side_by_side, load_committed_generator
from components.images.pixels import PixelReader
from components.images.snapshot import Snapshot, read_snapshot
from components.images.split import HELD_OUT, TRAIN
from components.priors.config import SamplingConfig
from components.priors.facts import PriorFacts
from components.store import commits
from components.training.batches import ImageBatch
from components.workspace import StepOutput, Workspace

MAX_REAL_IMAGES = 5000
"""Largest number of real images per split: all are held in memory."""
EVALUATION_SEED = 1_000_003
"""Added to the pipeline's seed, so that the measured samples are not those that a user draws with that seed. The number
itself means nothing: any that nobody chooses as a seed will do."""


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
    (text). The committed content is scores.json alone. report.html is a document of the output, because it names MLflow
    runs, which must not change the artifact's digest.
    """
    generator = load_committed_generator(inputs["generator"].uri)
    snapshot = read_snapshot(inputs["images"].uri)
    held_out = _original_images(snapshot, HELD_OUT)
    evaluation = _measure(config, inputs, generator, snapshot, held_out, resources, workspace)
    scores = evaluation.scores
    pictures = paint_pictures(evaluation, generator, held_out, config.pictures)
    page = render_report(
        title=title, scores=scores, pictures=pictures, lineage=_lineage(inputs, workspace), settings=settings
    )
    contents = {"scores.json": json.dumps(scores.figures(), indent=1, sort_keys=True).encode()}
    facts = _facts_of(scores)
    workspace.lease.check()
    return StepOutput(
        digest=commits.save_artifact(workspace.uri, contents, facts.record()),
        facts=facts,
        pictures={"samples": pictures.before, "samples-kept": pictures.after, "levels": pictures.levels},
        documents={"report.html": page},
    )


def _measure(
    config: EvaluationConfig,
    inputs: Mapping[str, Artifact],
    generator: Generator,
    snapshot: Snapshot,
    held_out: ImageBatch,
    resources: StepResources,
    workspace: Workspace,
) -> Evaluation:
    """Draw samples and compare them with the real images of the snapshot."""
    drawn = draw_side_by_side(
        inputs["generator"].uri,
        classes=range(len(generator.classes)),
        count=draws_per_class(config),
        seed=workspace.seed + EVALUATION_SEED,
        sampling=SamplingConfig(temperature=config.temperature),
        resources=resources,
        workspace=workspace,
    )
    priors = [inputs[f"prior_{level.name}"].read(PriorFacts) for level in generator.tokenizer.architecture.levels]
    return evaluate_samples(
        generator,
        load_classifier(commits.local_copy(inputs["judge"].uri)),
        drawn,
        train=_original_images(snapshot, TRAIN),
        held_out=held_out,
        nats_per_code=[prior.nats_per_code for prior in priors],
        config=config,
        seed=workspace.seed,
    )


def _original_images(snapshot: Snapshot, split: str) -> ImageBatch:
    """Images of a split without augmented copies: all, or MAX_REAL_IMAGES evenly spread ones."""
    rows = snapshot.originals(split)
    if rows.num_rows > MAX_REAL_IMAGES:
        # Rows are sorted by key, often class by class: evenly spread rows keep the mix of classes.
        rows = rows.take(pa.array(np.linspace(0, rows.num_rows - 1, MAX_REAL_IMAGES).astype(np.int64)))
    pixels = PixelReader(snapshot.pixels, snapshot.seed).read(rows)  # (n, h, w, c)
    labels = np.asarray(rows["label"].fill_null(-1)).astype(np.int64)  # (n,)
    return ImageBatch(torch.from_numpy(pixels), torch.from_numpy(labels))


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
    measures = {
        name.replace("/", "_"): value
        for name, value in scores.figures().items()
        if not name.startswith("judge_accuracy/")
    }
    return EvaluationFacts(
        judge_accuracy=scores.before.accuracy,
        kept_accuracy=scores.after.accuracy,
        keep=scores.keep,
        samples=scores.samples,
        measures=measures,
    )

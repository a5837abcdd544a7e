"""The evaluation step: draw from the generator, side by side on the cluster; measure; write the report."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from components.artifacts import Artifact
from components.cluster.step import Cluster
from components.config import StepResources
from components.evaluation.config import EvaluationConfig
from components.evaluation.protocol import draws_per_class, evaluate_samples
from components.evaluation.report import LineageRow, paint_pictures, render_report
from components.generator.step import draw_on_cluster, load_committed_generator
from components.images.config import ImagesConfig
from components.images.pixels import PixelReader
from components.images.snapshot import read_snapshot
from components.images.split import HELD_OUT, TRAIN
from components.priors.choice import SamplingConfig
from components.store import commits, objects
from components.store.weights import load_classifier
from components.training.batches import ImageBatch
from components.workspace import StepOutput, Workspace

MAX_REAL_IMAGES = 5000
"""Real images of a split that the samples are compared with."""
EVALUATION_SEED = 1_000_003
"""Added to the pipeline's seed: the judged samples are none that a user of that seed draws."""


def evaluate_generator(
    config: EvaluationConfig,
    images_config: ImagesConfig,
    inputs: Mapping[str, Artifact],
    lineage: Sequence[LineageRow],
    *,
    title: str,
    settings: str,
    resources: StepResources,
    cluster: Cluster,
    workspace: Workspace,
) -> StepOutput:
    """Measure the artifact `generator` of `inputs` against the snapshot `images` with the artifact `judge`.

    `lineage`, `title` and `settings` (text) are shown in the report.
    """
    generator = load_committed_generator(inputs["generator"].uri)
    judge = load_classifier(commits.local_copy(inputs["judge"].uri))
    seed = workspace.seed + EVALUATION_SEED
    drawn = draw_on_cluster(
        inputs["generator"].uri,
        classes=range(len(generator.classes)),
        count=draws_per_class(config),
        seed=seed,
        choice=SamplingConfig(temperature=config.temperature),
        resources=resources,
        cluster=cluster,
        progress=workspace.progress,
    )
    train, held_out = (
        _originals(inputs["images"], images_config, workspace.seed, split) for split in (TRAIN, HELD_OUT)
    )
    nats = [
        float(inputs[f"prior_{level.name}"].facts["nats_per_code"] or 0) for level in generator.tokenizer.config.levels
    ]
    evaluation = evaluate_samples(
        generator, judge, drawn, train=train, held_out=held_out, nats_per_code=nats, config=config, seed=workspace.seed
    )
    pictures = paint_pictures(evaluation, generator, held_out, config.pictures)
    scores = evaluation.scores
    page = render_report(title=title, scores=scores, pictures=pictures, lineage=lineage, config=settings)
    figures = scores.figures()
    facts = {
        "judge_accuracy": scores.before.accuracy,
        "kept_accuracy": scores.after.accuracy,
        "samples": scores.samples,
    } | {name.replace("/", "_"): value for name, value in figures.items() if not name.startswith("judge_accuracy/")}
    workspace.journal.document("report.html", page)
    workspace.lease.check()
    # The page names runs and times; the artifact's digest covers the figures alone.
    objects.write_bytes(objects.join(workspace.uri, "report.html"), page.encode())
    digest = commits.save_artifact(
        workspace.uri, {"scores.json": json.dumps(figures, indent=1, sort_keys=True).encode()}, facts
    )
    return StepOutput(
        digest=digest,
        facts=facts,
        pictures={"samples": pictures.before, "samples-kept": pictures.after, "levels": pictures.levels},
    )


def _originals(images: Artifact, config: ImagesConfig, seed: int, split: str) -> ImageBatch:
    """Images of a split without augmented copies, at most MOST_REAL, evenly spread."""
    rows = read_snapshot(images.uri).originals(split)
    if rows.num_rows > MAX_REAL_IMAGES:
        rows = rows.take(pa.array(np.linspace(0, rows.num_rows - 1, MAX_REAL_IMAGES).astype(np.int64)))
    pixels = PixelReader(config, seed).read(rows)
    return ImageBatch(
        torch.from_numpy(pixels), torch.from_numpy(np.asarray(rows["label"].fill_null(-1)).astype(np.int64))
    )

"""Fitting a classifier on Ray Train: one rejects samples (section 3.3), another, the judge, measures them.

Images with fewer than two classes leave nothing to classify. The rejecting classifier then is empty, and the judge is
fitted to tell rotations apart, so that its features mean something.
"""

import dataclasses
import functools

import torch
from torch import nn

from components.artifacts import Artifact
from components.classifier.config import ClassifierConfig
from components.classifier.facts import ClassifierFacts
from components.classifier.objective import ROTATIONS, ClassifierObjective, RotationObjective
from components.classifier.program import ProgramClassifier
from components.classifier.stored import ClassifierDescription, pack_classifier, pack_empty, pack_program
from components.config import StepResources
from components.images.feed import ImageFeed
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.store import objects
from components.training.job import FitJob
from components.training.loop import evaluate_objective
from components.training.step import run_fit
from components.workspace import StepOutput, Workspace

SEED_STRIDE = 7919
"""Distance between the seeds of two classifiers whose `seed` differs by 1: a large prime, so that classifiers of runs
with small seeds share no seed."""


def fit_classifier(
    config: ClassifierConfig, images: Artifact, *, resources: StepResources, workspace: Workspace
) -> StepOutput:
    """Fit the rejecting classifier on the training rows of the snapshot `images`, and commit the best weights by
    held-out loss.

    With `config.program`, that program is checked, measured on held-out images and committed instead. With fewer than
    two classes and no program, or without classes, an empty classifier is committed. Raises ValueError when there is no
    such program or it does not classify these images.
    """
    snapshot = open_snapshot(images.uri)
    description = ClassifierDescription(
        architecture=config,
        dropout=config.dropout,
        channels=snapshot.pixels.channels,
        class_names=snapshot.classes,
    )
    if not snapshot.classes or (len(snapshot.classes) == 1 and config.program is None):
        return _commit_empty(description, config, workspace)
    if config.program is not None:
        feed = _feed(config, images, resources, workspace)
        return _adopt_program(_read_program(config.program, workspace), description, snapshot, feed, workspace)
    return _fit(description, config, images, resources, workspace)


def fit_judge(
    config: ClassifierConfig, images: Artifact, *, resources: StepResources, workspace: Workspace
) -> StepOutput:
    """Fit the judge on the training rows of the snapshot `images`, and commit the best weights by held-out loss.

    It tells the classes apart, or with fewer than two classes by how many quarter turns an image is rotated.
    """
    snapshot = open_snapshot(images.uri)
    has_classes = len(snapshot.classes) >= 2
    description = ClassifierDescription(
        architecture=config,
        task="classes" if has_classes else "rotation",
        dropout=config.dropout,
        channels=snapshot.pixels.channels,
        class_names=snapshot.classes if has_classes else ROTATIONS,
    )
    return _fit(description, config, images, resources, workspace)


def _fit(
    description: ClassifierDescription,
    config: ClassifierConfig,
    images: Artifact,
    resources: StepResources,
    workspace: Workspace,
) -> StepOutput:
    job = FitJob(
        build=functools.partial(_build_objective, description, _seed(config, workspace)),
        data=_feed(config, images, resources, workspace),
        config=config.training,
        resources=resources,
    )
    result = run_fit(job, workspace=workspace)
    model = description.build()
    model.load_state_dict(result.weights)
    facts = ClassifierFacts(
        held_out_accuracy=result.fit_progress.held_out["accuracy"],
        held_out_loss=result.fit_progress.best_loss,
        best_update=result.fit_progress.best_update,
        task=description.task,
    )
    return _commit(pack_classifier(model, description), facts, workspace)


def _build_objective(description: ClassifierDescription, seed: int) -> nn.Module:
    # In place of the pipeline's seed: the two classifiers of a run must start from different weights.
    torch.manual_seed(seed)
    model = description.build()
    return RotationObjective(model) if description.task == "rotation" else ClassifierObjective(model)


def _feed(config: ClassifierConfig, images: Artifact, resources: StepResources, workspace: Workspace) -> ImageFeed:
    seed = _seed(config, workspace)
    return ImageFeed(folder=images.uri, schedule=config.training, order_seed=seed, readers=resources.readers)


def _seed(config: ClassifierConfig, workspace: Workspace) -> int:
    return workspace.seed + SEED_STRIDE * config.seed


def _commit_empty(description: ClassifierDescription, config: ClassifierConfig, workspace: Workspace) -> StepOutput:
    """Commit a classifier that rejects nothing."""
    why = "the images have one class" if description.class_names else "the images have no classes"
    unused = "; classifier.program is not used" if config.program is not None else ""
    workspace.progress.say(f"{workspace.name}: {why}, so that no sample is rejected; nothing to fit{unused}")
    facts = ClassifierFacts(held_out_accuracy=None, held_out_loss=None, task="none")
    return _commit(pack_empty(dataclasses.replace(description, architecture=None, dropout=0.0)), facts, workspace)


def _read_program(uri: str, workspace: Workspace) -> bytes:
    """Content of the .pt2 file at a path or URI, or in the registered model models:/..."""
    if uri.startswith("models:/"):
        return workspace.models.read_program(uri)
    try:
        return objects.read_bytes(objects.absolute(uri))
    except FileNotFoundError:
        raise ValueError(f"classifier.program must name a .pt2 file, found nothing at {uri}") from None


def _adopt_program(
    data: bytes, description: ClassifierDescription, snapshot: StoredSnapshot, feed: ImageFeed, workspace: Workspace
) -> StepOutput:
    """Commit an exported program, the content of a .pt2 file, as the classifier."""
    description = dataclasses.replace(description, architecture=None, dropout=0.0)
    program = ProgramClassifier(data, channels=description.channels, classes=len(description.class_names))
    program.check(snapshot.pixels.image_size)
    measured = evaluate_objective(ClassifierObjective(program), feed(0, 1).held_out())  # in this process
    facts = ClassifierFacts(held_out_accuracy=measured["accuracy"], held_out_loss=measured["loss"])
    return _commit(pack_program(data, description), facts, workspace)


def _commit(contents: dict[str, bytes], facts: ClassifierFacts, workspace: Workspace) -> StepOutput:
    return StepOutput(digest=workspace.save(contents, facts), facts=facts)

"""Fitting a classifier on Ray Train: one rejects samples (section 3.3), another, its judge, measures them."""

import functools

import torch
from torch import nn

from components.artifacts import Artifact
from components.classifier.config import ClassifierConfig
from components.classifier.model import Classifier
from components.classifier.objective import ClassifierObjective
from components.classifier.program import ProgramClassifier
from components.cluster.step import Cluster
from components.config import StepResources
from components.images.config import ImagesConfig
from components.images.snapshot import read_snapshot
from components.store import commits
from components.store.weights import ClassifierDescription, pack, pack_program
from components.training import step as training
from components.training.loop import evaluate_objective
from components.workspace import StepOutput, Workspace


def fit_classifier(
    config: ClassifierConfig,
    images_config: ImagesConfig,
    images: Artifact,
    *,
    program: bytes | None,
    resources: StepResources,
    cluster: Cluster,
    workspace: Workspace,
) -> StepOutput:
    """Fit on the training rows of the snapshot `images` and commit the best weights by held-out loss.

    A `program` of the user's own, the content of a .pt2 file, is checked, measured and committed instead.
    """
    seed = workspace.seed + 7919 * config.seed
    feed = training.ImageFeed(
        folder=images.uri,
        images=images_config,
        pixel_seed=workspace.seed,
        config=config.training,
        order_seed=seed,
        readers=resources.readers,
    )
    names = read_snapshot(images.uri).classes
    description = ClassifierDescription(settings=config, channels=images_config.channels, class_names=names)
    if program is not None:
        return _adopt(program, description, images_config.image_size, feed, workspace)
    job = training.FitJob(
        build=functools.partial(_build, config, images_config.channels, len(names), seed),
        data=feed,
        config=config.training,
        resources=resources,
    )
    fitted = training.run_fit(job, cluster=cluster, workspace=workspace)
    model = Classifier(config, channels=images_config.channels, classes=len(names))
    model.load_state_dict(fitted.weights)
    facts = {
        "held_out_accuracy": fitted.fit_progress.held_out["accuracy"],
        "held_out_loss": fitted.fit_progress.best_loss,
        "best_update": fitted.fit_progress.best_update,
    }
    workspace.lease.check()
    return StepOutput(digest=commits.save_artifact(workspace.uri, pack(model, description), facts), facts=facts)


def _adopt(
    data: bytes, description: ClassifierDescription, image_size: int, feed: training.ImageFeed, workspace: Workspace
) -> StepOutput:
    """Take the user's own classifier."""
    program = ProgramClassifier(data, channels=description.channels, classes=len(description.class_names))
    program.check(image_size)
    found = evaluate_objective(ClassifierObjective(program), feed(0, 1).held_out())
    facts = {"held_out_accuracy": found["accuracy"], "held_out_loss": found["loss"], "best_update": 0}
    workspace.lease.check()
    return StepOutput(digest=commits.save_artifact(workspace.uri, pack_program(data, description), facts), facts=facts)


def _build(config: ClassifierConfig, channels: int, classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ClassifierObjective(Classifier(config, channels=channels, classes=classes))

"""Algorithm 2, lines 7-9, on Ray Train: fit one level's prior on the codes."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from components.artifacts import Artifact
from components.cluster.step import Cluster
from components.codes.reader import read_codes, unigram_entropy
from components.config import StepResources, TrainingConfig
from components.images.split import HELD_OUT, TRAIN
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.objective import PriorObjective
from components.store import commits
from components.store.weights import PriorDescription, pack
from components.training import step as training
from components.training.batches import CodeBatch
from components.training.loop import FitData
from components.training.sample_order import batch_rows, worker_slice
from components.workspace import StepOutput, Workspace


def fit_prior(
    config: PriorConfig,
    level: str,
    codes: Artifact,
    *,
    classes: int,
    dimensions: int,
    resources: StepResources,
    cluster: Cluster,
    workspace: Workspace,
) -> StepOutput:
    """Fit p(codes of `level` | class, codes of the levels above) and commit the best weights by held-out nats.

    `dimensions` are the numbers of an image, height x width x channels.
    """
    train, held_out = read_codes(codes.uri, TRAIN), read_codes(codes.uri, HELD_OUT)
    number = train.number(level)
    specs = tuple(MapSpec(one.height, one.width, one.codebook_size) for one in train.levels)
    own = train.levels[number]
    description = PriorDescription(
        level=level,
        settings=config,
        shape=(own.height, own.width),
        codebook_size=own.codebook_size,
        classes=classes,
        above=specs[:number],
    )
    job = training.FitJob(
        build=functools.partial(_build, description, dimensions),
        data=_CodeFeed(codes.uri, number, config.training, workspace.seed),
        config=config.training,
        resources=resources,
    )
    fitted = training.run_fit(job, cluster=cluster, workspace=workspace)
    model = description.build()
    model.load_state_dict(fitted.weights)
    nats = fitted.fit_progress.held_out["nats_per_code"]
    facts = {
        "nats_per_code": nats,
        "bits_per_code": nats / math.log(2),
        "bits_per_dimension": fitted.fit_progress.held_out["bits_per_dimension"],
        "unigram_nats": unigram_entropy(train, held_out, level),
        "codes_per_image": own.height * own.width,
        "best_update": fitted.fit_progress.best_update,
        "updates": fitted.fit_progress.update,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    workspace.lease.check()
    return StepOutput(digest=commits.save_artifact(workspace.uri, pack(model, description), facts), facts=facts)


def _build(description: PriorDescription, dimensions: int) -> nn.Module:
    return PriorObjective(description.build(), dimensions=dimensions)


@dataclass(frozen=True)
class _CodeFeed:
    """Code maps of one level and of those above it, drawn from the memory-mapped copy on the worker's machine."""

    folder: str
    level: int
    config: TrainingConfig
    seed: int

    def __call__(self, rank: int, workers: int) -> FitData:
        """The share of worker `rank`."""
        return FitData(
            batches=lambda start: self._batches(start, rank, workers), held_out=lambda: self._held_out(rank, workers)
        )

    def _batches(self, start: int, rank: int, workers: int) -> Iterator[CodeBatch]:
        table = read_codes(self.folder, TRAIN)
        size = self.config.batch_size
        for update in range(start, self.config.updates):
            drawn = batch_rows(update * size, size, self.seed, len(table))
            yield self._upto(table.batch(worker_slice(drawn, rank, workers)))

    def _held_out(self, rank: int, workers: int) -> Iterator[CodeBatch]:
        table = read_codes(self.folder, HELD_OUT)
        rows = np.arange(rank, min(len(table), self.config.held_out_samples), workers)
        for start in range(0, len(rows), self.config.batch_size):
            yield self._upto(table.batch(rows[start : start + self.config.batch_size]))

    def _upto(self, batch: CodeBatch) -> CodeBatch:
        return CodeBatch(batch.maps[: self.level + 1], batch.labels)

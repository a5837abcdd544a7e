"""Algorithm 2, lines 8 and 9, on Ray Train: fit one level's prior on the codes."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from components.artifacts import Artifact
from components.codes.facts import CodesFacts
from components.codes.reader import CodeTable, read_codes, unigram_entropy
from components.config import StepResources, TrainingConfig
from components.images.split import HELD_OUT, TEST, TRAIN
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.facts import PriorFacts
from components.priors.objective import PriorObjective
from components.priors.stored import PriorDescription, pack_prior
from components.training.batches import CodeBatch
from components.training.job import FitJob
from components.training.loop import FitData
from components.training.sample_order import batch_rows, worker_slice
from components.training.step import run_fit
from components.workspace import StepOutput, Workspace


def fit_prior(
    config: PriorConfig, level: str, codes: Artifact, *, resources: StepResources, workspace: Workspace
) -> StepOutput:
    """Fit p(codes of `level` | class, codes of the levels above) and commit the weights with the best held-out nats."""
    codes_facts = codes.read(CodesFacts)
    train, held_out = read_codes(codes.uri, TRAIN), read_codes(codes.uri, HELD_OUT)
    measured_rows = held_out.sample(config.training.held_out_samples)
    description = _describe(config, level, train, codes_facts.classes)
    job = FitJob(
        build=functools.partial(_build, description, config, codes_facts.dimensions),
        data=_CodeFeed(codes.uri, len(description.above), config.training, workspace.seed, codes_facts.test_rows > 0),
        config=config.training,
        resources=resources,
    )
    result = run_fit(job, workspace=workspace)
    model = description.build()
    model.load_state_dict(result.weights)
    nats = result.fit_progress.held_out["nats_per_code"]
    final = {name: metrics["nats_per_code"] for name, metrics in result.fit_progress.final.items()}
    facts = PriorFacts(
        nats_per_code=nats,
        bits_per_code=nats / math.log(2),
        bits_per_dimension=result.fit_progress.held_out["bits_per_dimension"],
        unigram_nats=unigram_entropy(train, held_out, level, measured_rows),
        train_nats_per_code=final[TRAIN],
        test_nats_per_code=final.get(TEST),
        codes_per_image=math.prod(description.shape),
        best_update=result.fit_progress.best_update,
        updates=result.fit_progress.update,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )
    digest = workspace.save(pack_prior(model, description), facts)
    return StepOutput(digest=digest, facts=facts)


def _describe(config: PriorConfig, level: str, train: CodeTable, classes: int) -> PriorDescription:
    """The prior of `level` for the maps in the code dataset."""
    number = train.number(level)
    specs = tuple(MapSpec(each.height, each.width, each.codebook_size) for each in train.levels)
    return PriorDescription(
        level=level,
        architecture=config,
        shape=(specs[number].height, specs[number].width),
        codebook_size=specs[number].codebook_size,
        classes=classes,
        above=specs[:number],
    )


def _build(description: PriorDescription, config: PriorConfig, dimensions: int) -> nn.Module:
    model = description.build(dropout=config.dropout, recompute=config.recompute)
    return PriorObjective(model, dimensions=dimensions)


@dataclass(frozen=True)
class _CodeFeed:
    """Code maps of one level and of those above it, read from the memory-mapped copy on the worker's machine."""

    folder: str
    level: int
    """Number of levels above."""
    config: TrainingConfig
    seed: int
    has_test: bool
    """Whether the dataset has a test split."""

    def __call__(self, rank: int, workers: int) -> FitData:
        """Data of worker `rank`."""

        def sample(split: str) -> Callable[[], Iterator[CodeBatch]]:
            return lambda: self._sample(split, rank, workers)

        return FitData(
            batches=lambda start: self._batches(start, rank, workers),
            held_out=sample(HELD_OUT),
            final={split: sample(split) for split in ((TRAIN, TEST) if self.has_test else (TRAIN,))},
        )

    def _batches(self, start: int, rank: int, workers: int) -> Iterator[CodeBatch]:
        table = read_codes(self.folder, TRAIN)
        size = self.config.batch_size
        for update in range(start, self.config.updates):
            rows = batch_rows(update * size, size, self.seed, len(table))
            yield self._down_to_level(table.batch(worker_slice(rows, rank, workers)))

    def _sample(self, split: str, rank: int, workers: int) -> Iterator[CodeBatch]:
        """Originals of a split, as many as are held out, spread over the classes."""
        table = read_codes(self.folder, split)
        rows = table.sample(self.config.held_out_samples)[rank::workers]
        for start in range(0, len(rows), self.config.batch_size):
            yield self._down_to_level(table.batch(rows[start : start + self.config.batch_size]))

    def _down_to_level(self, batch: CodeBatch) -> CodeBatch:
        """`batch` without the maps below this level."""
        return CodeBatch(batch.maps[: self.level + 1], batch.labels)

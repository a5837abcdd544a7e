"""The steps' bare work, in one process and without Ray, Dagster or MLflow: what the pipeline's overhead is beside.

Prints one JSON line: CPU seconds by step.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from components.classifier.model import Classifier
from components.classifier.objective import ClassifierObjective
from components.codes.batch_encoder import BatchEncoder
from components.codes.dataset import TokenizerFiles, commit_dataset
from components.codes.reader import read_codes
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import build_shard, row_versions, write_shard
from components.config import TrainingConfig
from components.evaluation.protocol import draws_per_class, evaluate_samples
from components.generator.ancestral import Generator
from components.generator.rejection import draw_samples
from components.images.commit import commit_snapshot
from components.images.pixels import PixelReader
from components.images.snapshot import Snapshot, open_snapshot, read_snapshot
from components.images.sources.registry import list_images
from components.images.split import HELD_OUT, TRAIN
from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.priors.objective import PriorObjective
from components.store.weights import TokenizerDescription, pack
from components.tokenizer.model import Tokenizer
from components.tokenizer.objective import TokenizerObjective
from components.training.batches import CodeBatch, ImageBatch
from components.training.loop import FitData, fit_objective
from components.training.sample_order import batch_rows
from components.training.state import FitState
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config

SECONDS: dict[str, float] = {}


class Silent:
    """An observer that only saves, as a real run does."""

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None: ...

    def evaluated(self, update: int, metrics: dict[str, float], objective: torch.nn.Module) -> None: ...

    def checkpoint(self, state: FitState) -> None:
        """Write the state to a temporary folder."""
        with tempfile.TemporaryDirectory() as folder:
            state.save(Path(folder))


def timed(name: str, work: Callable[[], object]) -> None:
    """Run `work`, adding its CPU seconds under `name`."""
    started = time.process_time()
    work()
    SECONDS[name] = SECONDS.get(name, 0.0) + time.process_time() - started


def fitted(objective: torch.nn.Module, training: TrainingConfig, data: FitData) -> None:
    """Fit in place."""
    fit_objective(objective, config=training, seed=0, data=data, observer=Silent())


def image_data(config: PipelineConfig, snapshot: Snapshot, training: TrainingConfig) -> FitData:
    """Images read in this process."""
    reader, rows = PixelReader(config.images, config.seed), snapshot.split(TRAIN)

    def batch(some: pa.Table) -> ImageBatch:
        return ImageBatch(
            torch.from_numpy(reader.read(some)), torch.from_numpy(np.asarray(some["label"]).astype(np.int64))
        )

    def batches(start: int) -> Iterator[ImageBatch]:
        for update in range(start, training.updates):
            yield batch(
                rows.take(pa.array(batch_rows(update * training.batch_size, training.batch_size, 0, rows.num_rows)))
            )

    return FitData(batches=batches, held_out=lambda: [batch(snapshot.originals(HELD_OUT))])


def code_data(folder: str, level: int, training: TrainingConfig) -> FitData:
    """Code maps of a level and those above."""
    train, held_out = read_codes(folder, TRAIN), read_codes(folder, HELD_OUT)

    def upto(batch: CodeBatch) -> CodeBatch:
        return CodeBatch(batch.maps[: level + 1], batch.labels)

    def batches(start: int) -> Iterator[CodeBatch]:
        for update in range(start, training.updates):
            yield upto(train.batch(batch_rows(update * training.batch_size, training.batch_size, 0, len(train))))

    return FitData(batches=batches, held_out=lambda: [upto(held_out.batch(np.arange(len(held_out))))])


def main() -> None:
    """All steps in the order of the paper."""
    torch.set_num_threads(1)
    config = load_config("digits", sys.argv[1:])
    root = Path(tempfile.mkdtemp())
    images, codes = str(root / "images"), str(root / "codes")
    timed(
        "images",
        lambda: commit_snapshot(images, list_images(config.images, images), [], config.images, seed=config.seed),
    )
    snapshot = read_snapshot(images)
    tokenizer = Tokenizer(config.vqvae, channels=config.images.channels)
    timed(
        "tokenizer",
        lambda: fitted(
            TokenizerObjective(tokenizer), config.vqvae.training, image_data(config, snapshot, config.vqvae.training)
        ),
    )
    tokenizer.eval()
    timed("codes", lambda: encode(config, images, snapshot, tokenizer, codes))
    levels = read_codes(codes, TRAIN).levels
    specs = tuple(MapSpec(one.height, one.width, one.codebook_size) for one in levels)
    priors = []
    for number, level in enumerate(levels):
        settings = config.priors[level.name]
        prior = Prior(
            settings,
            shape=(level.height, level.width),
            codebook_size=level.codebook_size,
            classes=10,
            above=specs[:number],
        )
        timed(
            f"prior_{level.name}",
            lambda prior=prior, number=number, settings=settings: fitted(
                PriorObjective(prior, dimensions=config.images.image_size**2 * config.images.channels),
                settings.training,
                code_data(codes, number, settings.training),
            ),
        )  # type: ignore[misc]
        priors.append(prior.eval())
    classifiers = [
        Classifier(settings, channels=config.images.channels, classes=10)
        for settings in (config.classifier, config.judge)
    ]
    for name, model in zip(("classifier", "judge"), classifiers, strict=True):
        timed(
            name,
            lambda model=model: fitted(
                ClassifierObjective(model),
                config.classifier.training,
                image_data(config, snapshot, config.classifier.training),
            ),
        )  # type: ignore[misc]
        model.eval()
    timed(
        "evaluation",
        lambda: measure(
            config, snapshot, Generator(tokenizer, priors, classifiers[0], snapshot.classes), classifiers[1]
        ),
    )
    print(json.dumps(SECONDS))


@torch.no_grad()
def encode(config: PipelineConfig, images: str, snapshot: Snapshot, tokenizer: Tokenizer, folder: str) -> None:
    """All rows to committed shards."""
    reader, table = PixelReader(config.images, config.seed), snapshot.table
    sides = [config.map_side(name) for name in config.level_names]
    levels = tuple(
        CodeLevel(name=level.name, height=side, width=side, codebook_size=level.codebook_size)
        for level, side in zip(config.vqvae.levels, sides, strict=True)
    )
    file = open_snapshot(images)
    schema = CodeSchema(levels=levels, tokenizer_digest="0", preprocessing=file.preprocessing)
    encoding = BatchEncoder(
        tokenizer, batch_size=config.codes.batch_size, precision=config.codes.precision, device="cpu"
    )
    shards = []
    for start in range(0, table.num_rows, config.codes.rows_per_shard):
        rows = table.slice(start, config.codes.rows_per_shard)
        parts = [encoding(reader.read(some)) for some in _slices(rows, config.codes.batch_size)]
        maps = [np.concatenate(level) for level in zip(*(maps for maps, _ in parts), strict=True)]
        errors = np.concatenate([errors for _, errors in parts])
        shard = build_shard(schema, rows, row_versions(rows), maps, errors)
        shards.append(write_shard(folder, f"part-{start}.parquet", shard))
    with tempfile.TemporaryDirectory() as local:
        described = TokenizerDescription(
            settings=config.vqvae, channels=config.images.channels, image_size=config.images.image_size
        )
        for name, data in pack(tokenizer, described).items():
            (Path(local) / name).write_bytes(data)
        files = TokenizerFiles(Path(local), "0")
        commit_dataset(folder, schema, shards, [], file, files, config=config.codes, previous=None)


def _slices(rows: pa.Table, size: int) -> list[pa.Table]:
    return [rows.slice(first, size) for first in range(0, rows.num_rows, size)]


def measure(config: PipelineConfig, snapshot: Snapshot, generator: Generator, judge: Classifier) -> None:
    """Draw and score."""
    reader = PixelReader(config.images, config.seed)
    real = []
    for split in (TRAIN, HELD_OUT):
        rows = snapshot.originals(split)
        real.append(
            ImageBatch(
                torch.from_numpy(reader.read(rows)), torch.from_numpy(np.asarray(rows["label"]).astype(np.int64))
            )
        )
    drawn = draw_samples(generator, classes=range(10), count=draws_per_class(config.evaluation), seed=1, batch=100)
    evaluate_samples(
        generator,
        judge,
        drawn,
        train=real[0],
        held_out=real[1],
        nats_per_code=[0.0] * len(generator.priors),
        config=config.evaluation,
        seed=0,
    )


if __name__ == "__main__":
    main()

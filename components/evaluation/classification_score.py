"""The classification accuracy score (Ravuri and Vinyals 2019): how well a classifier learns from samples alone.

Three classifiers of the judge's architecture are fitted in the same way: to real images, to their reconstructions and
to samples. The first two say what can be reached (the paper's table 2). Each is measured on real images that no model
was fitted to.

Shapes: n images, h w sides of a code map, y classes.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.classifier.stored import describe_classifier
from components.codes.reader import read_codes
from components.config import StepResources, TrainingConfig
from components.evaluation.config import EvaluationConfig
from components.evaluation.parts import read_tensors
from components.evaluation.scores import ClassificationScore
from components.images.pixels import PixelReader
from components.images.snapshot import label_numbers, read_snapshot
from components.images.split import TRAIN
from components.images.tensors import to_images, to_pixels
from components.store import commits, objects
from components.tokenizer.model import Tokenizer
from components.tokenizer.stored import load_tokenizer
from components.training.batches import CodeBatch, ImageBatch
from components.training.job import FitJob
from components.training.loop import FitData
from components.training.sample_order import batch_rows
from components.training.step import run_fit
from components.workspace import SilentJournal, Workspace

PEAK_LEARNING_RATE = 2e-3
"""Learning rate of the score's fits, which are short: it starts here and falls to 0."""
CHECKPOINTS_PER_FIT = 10
MOST_PASSES = 2000
"""Passes over its images after which a fit ends: a handful of images is known by heart long before `cas_updates`."""
LEAST_UPDATES = 100
"""Updates of a fit to very few images, if the config allows as many."""
TOP = 5
"""Classes that may be named in the second accuracy."""

Batch = ImageBatch | CodeBatch


@dataclass(frozen=True)
class RealImages:
    """Training images."""

    snapshot: str
    """URI."""
    ids: np.ndarray
    """int64 (n,): rows of the snapshot."""

    def reader(self) -> Callable[[np.ndarray], Batch]:
        """Gives the images at given numbers 0 .. n - 1."""
        snapshot = read_snapshot(self.snapshot)
        rows = snapshot.table.filter(pc.is_in(snapshot.table["id"], pa.array(self.ids)))
        pixels = PixelReader(snapshot.pixels, snapshot.seed)
        return lambda numbers: image_batch(pixels, rows.take(pa.array(numbers)))


@dataclass(frozen=True)
class Reconstructions:
    """The same training images, decoded from their codes in the dataset."""

    codes: str
    """URI of the code dataset."""
    ids: np.ndarray
    """int64 (n,): rows of the snapshot."""

    def reader(self) -> Callable[[np.ndarray], Batch]:
        """Gives the codes of the images at given numbers 0 .. n - 1."""
        table = read_codes(self.codes, TRAIN)
        positions = np.flatnonzero(np.isin(table.ids, self.ids))  # (n,)
        return lambda numbers: table.batch(positions[numbers])


@dataclass(frozen=True)
class DrawnSamples:
    """Samples of the evaluation, by their codes."""

    folder: str
    positions: np.ndarray
    """int64 (n,)."""
    labels: np.ndarray
    """int64 (n,)."""
    levels: int

    def reader(self) -> Callable[[np.ndarray], Batch]:
        """Gives the codes of the samples at given numbers 0 .. n - 1."""
        names = [f"codes/{level}" for level in range(self.levels)]
        stored = read_tensors(self.folder, self.positions, names)
        labels = torch.from_numpy(self.labels)
        return lambda numbers: CodeBatch(
            tuple(stored[name][torch.from_numpy(numbers)].long() for name in names), labels[torch.from_numpy(numbers)]
        )


Source = RealImages | Reconstructions | DrawnSamples


def classification_scores(
    config: EvaluationConfig,
    sources: dict[str, Source],
    *,
    images: int,
    snapshot: str,
    split: str,
    judge: str,
    tokenizer: str,
    resources: StepResources,
    workspace: Workspace,
) -> tuple[ClassificationScore, ...]:
    """The score of each of `sources`, which hold `images` images each, fitted side by side.

    `snapshot`, `judge` and `tokenizer` are URIs; accuracy is measured on the originals of the snapshot's `split`.
    """
    schedule = fit_schedule(config, images)
    one_worker = dataclasses.replace(resources, workers=1)

    def fit(name: str) -> ClassificationScore:
        job = FitJob(
            build=functools.partial(_build, judge, tokenizer, workspace.seed),
            data=_Feed(sources[name], images, snapshot, split, schedule, workspace.seed),
            config=schedule,
            resources=one_worker,
        )
        result = run_fit(job, workspace=_workspace_of(workspace, name))
        held_out = result.fit_progress.held_out
        top_5 = held_out.get("top_5")
        return ClassificationScore(fitted_to=name, images=images, top_1=held_out["accuracy"], top_5=top_5)

    if workspace.cluster is None:  # in one process, fits share torch's random stream and its number of threads
        return tuple(map(fit, sources))
    with ThreadPoolExecutor(len(sources)) as pool:
        return tuple(pool.map(fit, sources))


def fit_schedule(config: EvaluationConfig, images: int) -> TrainingConfig:
    """Schedule of each fit to `images` images: `cas_updates` updates, or fewer for a handful of images."""
    updates = min(config.cas_updates, max(LEAST_UPDATES, MOST_PASSES * images // config.cas_batch_size))
    return TrainingConfig(
        updates=updates,
        batch_size=config.cas_batch_size,
        learning_rate=PEAK_LEARNING_RATE,
        final_rate=0.0,
        evaluate_every=updates,
        checkpoint_every=max(1, updates // CHECKPOINTS_PER_FIT),
    )


def _workspace_of(workspace: Workspace, name: str) -> Workspace:
    """A workspace of one of the fits, below the evaluation's; its curves are not tracked."""
    slug = name.replace(" ", "-")
    folder = objects.join(workspace.uri, commits.WORK_FOLDER, f"score-{slug}")
    return dataclasses.replace(workspace, name=f"CAS, {name}", uri=folder, journal=SilentJournal())


# --- in the workers ---------------------------------------------------------------------------------------------------


class ScoreObjective(nn.Module):
    """Cross entropy of a classifier on images, which are decoded first where a batch holds codes."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model = model
        self._tokenizer = (tokenizer,)  # in a tuple: it is neither fitted nor part of the checkpoints

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics `loss`, `accuracy` and, with more than five classes, `top_5`."""
        logits = self.model(to_images(self._pixels(batch)))  # (n, y)
        loss = F.cross_entropy(logits, batch.labels)
        metrics = {"loss": loss.detach(), "accuracy": _among_best(logits, batch.labels, 1)}
        if logits.shape[1] > TOP:
            metrics["top_5"] = _among_best(logits, batch.labels, TOP)
        return loss, metrics

    def parts(self) -> list[nn.Module]:
        """Modules for torch.compile."""
        return [self.model]

    @torch.no_grad()
    def _pixels(self, batch: Batch) -> Tensor:
        """uint8 (n, height, width, c): rounded as samples are stored."""
        if isinstance(batch, ImageBatch):
            return batch.pixels
        (tokenizer,) = self._tokenizer
        return to_pixels(tokenizer.to(batch.labels.device).decode(batch.maps))


def _among_best(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """Fraction of images whose label is among the `count` highest logits (n, y)."""
    return (logits.topk(count, dim=1).indices == labels[:, None]).any(dim=1).float().mean()


def _build(judge: str, tokenizer: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)  # the same first weights for all
    description = describe_classifier(commits.local_copy(judge))
    return ScoreObjective(description.build(), load_tokenizer(commits.local_copy(tokenizer)))


@dataclass(frozen=True)
class _Feed:
    """Batches of one source, and the unseen images that the classifier is measured on."""

    source: Source
    images: int
    snapshot: str
    split: str
    schedule: TrainingConfig
    seed: int

    def __call__(self, rank: int, workers: int) -> FitData:
        """Data of the one worker."""
        return FitData(batches=self._batches, held_out=self._unseen)

    def _batches(self, start: int) -> Iterator[Batch]:
        read, size = self.source.reader(), self.schedule.batch_size
        for update in range(start, self.schedule.updates):
            yield read(batch_rows(update * size, size, self.seed, self.images))

    def _unseen(self) -> Iterator[Batch]:
        snapshot = read_snapshot(self.snapshot)
        rows, pixels = snapshot.originals(self.split), PixelReader(snapshot.pixels, snapshot.seed)
        for start in range(0, rows.num_rows, self.schedule.batch_size):
            yield image_batch(pixels, rows.slice(start, self.schedule.batch_size))


def image_batch(pixels: PixelReader, rows: pa.Table) -> ImageBatch:
    """The images and labels of a snapshot's `rows`."""
    return ImageBatch(torch.from_numpy(pixels.read(rows)), torch.from_numpy(label_numbers(rows)))

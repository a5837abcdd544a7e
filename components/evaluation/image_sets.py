"""The sets of images that an evaluation compares, described part by part.

    samples      draws of every class; each share of the trade-off curve keeps equally many by rejection
    reference    half of the training images: what every set is compared with
    others       the other half, and their reconstructions: the figures of real images, at the number of the samples
    unseen       the test split (held-out images where there is none), and their reconstructions

Shapes: d draws, r real images of a set.
"""

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from torch import Tensor

from components.config import require
from components.evaluation.compare import SetRows
from components.evaluation.describe import (
    RealPart,
    describe_part,
    draw_part,
    read_real_part,
    reconstructions_of,
)
from components.evaluation.draws import DrawPlan
from components.evaluation.laboratory import Laboratory
from components.evaluation.parts import join_rows, part_ranges, read_rows
from components.generator.samples import DrawRequest
from components.images.snapshot import Snapshot
from components.images.split import TRAIN
from components.priors.config import SamplingConfig

EVALUATION_SEED = 1_000_003
"""Added to the pipeline's seed, so that the measured samples are not those that a user draws with that seed. The number
itself means nothing: any that nobody chooses as a seed will do."""

FEWEST_IMAGES = 4
"""Training images without which there are no two halves to compare."""


@dataclass(frozen=True)
class ImageSet:
    """Images that were described."""

    folder: str
    rows: dict[str, Tensor]
    """A few numbers per image (describe.py); `labels` int64 (r,) among them."""

    def take(self, positions: np.ndarray) -> SetRows:
        """The images at `positions`, for a comparison."""
        return SetRows(self.folder, positions, self.rows["labels"].numpy()[positions])

    def all(self) -> SetRows:
        """All images, for a comparison."""
        return self.take(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.rows["labels"])


@dataclass(frozen=True)
class RealSet:
    """Real images and, where they were asked for, their reconstructions."""

    table: pa.Table
    """Rows of the snapshot, (r,)."""
    images: ImageSet
    reconstructions: ImageSet | None


def draw_samples(laboratory: Laboratory, plan: DrawPlan, sampling: SamplingConfig) -> ImageSet:
    """Draw and describe the samples of `plan`, class by class."""
    folder = laboratory.folder("samples")
    request = plan.request(laboratory.workspace.seed + EVALUATION_SEED)
    ranges = part_ranges(len(request))
    arguments = [
        (
            laboratory.instruments,
            sampling,
            # Copies: a view would be sent with the whole tensor behind it.
            DrawRequest(request.labels[part.start : part.stop].clone(), request.seeds[part.start : part.stop].clone()),
            folder,
            number,
        )
        for number, part in enumerate(ranges)
    ]
    read = functools.partial(read_rows, folder)
    images = [len(part) for part in ranges]
    parts = laboratory.run_parts("drawing", draw_part, arguments, folder=folder, images=images, read=read)
    return ImageSet(folder, join_rows(parts))


def describe_images(laboratory: Laboratory, name: str, table: pa.Table, *, reconstruct: bool) -> RealSet:
    """Describe the images of the snapshot's rows `table` as the set `name`."""
    folder, ranges = laboratory.folder(name), part_ranges(table.num_rows)
    arguments = [
        (
            laboratory.instruments,
            laboratory.reader,
            rows_of(table, part),
            folder,
            number,
            reconstruct,
        )
        for number, part in enumerate(ranges)
    ]
    parts: dict[int, RealPart] = laboratory.run_parts(
        f"{name} images",
        describe_part,
        arguments,
        folder=folder,
        images=[len(part) for part in ranges],
        read=functools.partial(read_real_part, folder, reconstruct=reconstruct),
    )
    images = join_rows({number: part.images for number, part in parts.items()})
    others = {number: part.reconstructions for number, part in parts.items() if part.reconstructions is not None}
    reconstructions = ImageSet(reconstructions_of(folder), join_rows(others)) if others else None
    return RealSet(table, ImageSet(folder, images), reconstructions)


def rows_of(table: pa.Table, part: range) -> pa.Table:
    """The rows of a part as a table of their own: a slice would be sent with all rows behind it."""
    return table.take(pa.array(part))


def halves_of_training(snapshot: Snapshot, most: int) -> tuple[pa.Table, pa.Table]:
    """Two disjoint sets of training images without copies, equally large, at most `most` each; classes in proportion.

    Raises ValueError with fewer than FEWEST_IMAGES training images.
    """
    images = snapshot.originals(TRAIN).num_rows
    require(
        images >= FEWEST_IMAGES,
        f"there must be at least {FEWEST_IMAGES} training images to compare real with real images, got {images}: add "
        "images",
    )
    count = min(most, images // 2)
    chosen = snapshot.sample(TRAIN, 2 * count)  # every beginning has the classes in proportion, so every second row too
    return chosen.take(pa.array(range(0, 2 * count, 2))), chosen.take(pa.array(range(1, 2 * count, 2)))

"""Whether samples are copies of training images: the nearest of ALL training images to each sample, sought in tasks.

Shapes: q queries, k pairs shown.
"""

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from components.evaluation.describe import QuerySet, search_part
from components.evaluation.image_sets import rows_of
from components.evaluation.laboratory import Laboratory
from components.evaluation.measures.memorisation import copied_share, memorisation_ratio
from components.evaluation.parts import Rows, part_ranges, read_rows
from components.evaluation.scores import Memorisation
from components.images.split import TRAIN


class NearestRows(NamedTuple):
    """The nearest training image to each query."""

    distances: np.ndarray
    """float64 (q,), in thumbnails."""
    rows: np.ndarray
    """int64 (q,): row among the training images without copies."""


class SearchResult(NamedTuple):
    """The figures, and what the picture of nearest neighbours shows."""

    figures: Memorisation
    nearest: NearestRows
    """Of the samples."""
    training: pa.Table
    """The training images that were searched."""


def search_training(laboratory: Laboratory, samples: QuerySet, unseen: QuerySet) -> SearchResult:
    """Seek samples and unseen images among all training images without copies."""
    training = laboratory.snapshot.originals(TRAIN)
    nearest = _nearest(laboratory, (samples, unseen), training)
    count = len(samples.positions)
    of_samples = NearestRows(nearest.distances[:count], nearest.rows[:count])
    of_unseen = nearest.distances[count:]
    figures = Memorisation(
        queries=count,
        searched=training.num_rows,
        copied_share=copied_share(torch.from_numpy(of_samples.distances), torch.from_numpy(of_unseen)),
        ratio=memorisation_ratio(torch.from_numpy(of_samples.distances), torch.from_numpy(of_unseen)),
    )
    return SearchResult(figures, of_samples, training)


def _nearest(laboratory: Laboratory, queries: tuple[QuerySet, ...], training: pa.Table) -> NearestRows:
    folder, ranges = laboratory.folder("nearest"), part_ranges(training.num_rows)
    arguments = [
        (queries, laboratory.reader, rows_of(training, part), part.start, folder, number)
        for number, part in enumerate(ranges)
    ]
    parts: dict[int, Rows] = laboratory.run_parts(
        "nearest neighbours",
        search_part,
        arguments,
        folder=folder,
        images=[len(part) for part in ranges],
        read=functools.partial(read_rows, folder),
    )
    count = sum(len(each.positions) for each in queries)
    distances, rows = np.full(count, np.inf), np.full(count, -1)
    for number in sorted(parts):  # of equal distances the first row wins, whatever the order of the tasks
        found = {name: values.numpy() for name, values in parts[number].items()}
        nearer = found["distance"] < distances
        distances[nearer], rows[nearer] = found["distance"][nearer], found["row"][nearer]
    return NearestRows(distances, rows)

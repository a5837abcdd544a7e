"""The task that compares sets of images in the features of one extractor.

Shapes: n images of a set, f features, y classes of the extractor.
"""

import io
from typing import NamedTuple

import numpy as np
import torch

from components.evaluation.measures import registered
from components.evaluation.measures.frechet import FRECHET_DISTANCE, frechet_distance, frechet_refusal
from components.evaluation.measures.kinds import ComparisonSettings, FeatureMeasure, FeatureSet
from components.evaluation.measures.moments import Moments
from components.evaluation.parts import read_tensors
from components.evaluation.scores import Figure, Figures
from components.store import objects


class SetRows(NamedTuple):
    """Some images of a set that was described."""

    folder: str
    positions: np.ndarray
    """int64 (n,)."""
    labels: np.ndarray
    """int64 (n,)."""


class Comparison(NamedTuple):
    """Figures of one extractor."""

    features: int
    sets: list[Figures]
    """Of each set, in their order."""


def compare_sets(
    extractor: str, reference: SetRows, others: list[SetRows], settings: ComparisonSettings, statistics: str | None
) -> Comparison:
    """Every registered measure between the reference and each of the other sets.

    With `statistics`, a file of mean and covariance, the Frechet distance is measured against it.
    """
    real = _read_set(extractor, reference)
    moments = None if statistics is None else _read_moments(statistics)
    sets = []
    for rows in others:
        other = _read_set(extractor, rows)
        figures = {measure.name: _measured(measure, real, other, settings) for measure in registered.FEATURE_MEASURES}
        if moments is not None:
            figures[FRECHET_DISTANCE.name] = _distance_to(moments, other)
        sets.append(figures)
    return Comparison(real.features.shape[1], sets)


def _measured(
    measure: FeatureMeasure, real: FeatureSet, other: FeatureSet, settings: ComparisonSettings
) -> Figure:
    refused = measure.refuses(real, other, settings)
    if refused:
        return Figure(value=None, refused=refused)
    estimate = measure.compute(real, other, settings)
    return Figure(value=estimate.value, low=estimate.low, high=estimate.high)


def _distance_to(moments: Moments, other: FeatureSet) -> Figure:
    """The Frechet distance to reference statistics, without an interval."""
    refused = frechet_refusal(None, len(other), other.features.shape[1])
    if refused:
        return Figure(value=None, refused=refused)
    return Figure(value=frechet_distance(moments, Moments.of(other.features)))


def _read_moments(uri: str) -> Moments:
    return Moments.from_npz(io.BytesIO(objects.read_bytes(objects.absolute(uri))))


def _read_set(extractor: str, rows: SetRows) -> FeatureSet:
    names = (f"features/{extractor}", f"probabilities/{extractor}")
    stored = read_tensors(rows.folder, rows.positions, names)
    return FeatureSet(
        features=stored[names[0]],  # (n, f)
        probabilities=stored.get(names[1]),  # (n, y)
        labels=torch.from_numpy(rows.labels),  # (n,)
    )

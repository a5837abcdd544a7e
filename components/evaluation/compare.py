"""The task that compares sets of images in the features of one extractor.

Shapes: n images of a set, f features, y classes of the extractor.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.stored import read_statistics
from components.evaluation.measures import registered
from components.evaluation.measures.frechet import FRECHET_DISTANCE, estimate_frechet, frechet_refusal
from components.evaluation.measures.kinds import ComparisonSettings, Estimate, FeatureMeasure, FeatureSet
from components.evaluation.measures.moments import Moments
from components.evaluation.parts import read_tensors
from components.evaluation.scores import Figure, Figures


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
    sets: Sequence[Figures]
    """Of each set, in their order."""


def compare_sets(
    extractor: str,
    reference: SetRows,
    others: list[SetRows],
    settings: ComparisonSettings,
    program: FeaturesConfig | None,
) -> Comparison:
    """Every registered measure between the reference and each of the other sets.

    `program` are the settings of a user's extractor, None for the judge. If they name reference statistics, the Frechet
    distance is measured against these.
    """
    real = _read_set(extractor, reference)
    moments = None if program is None else read_statistics(program, real.features.shape[1])
    sets: list[Figures] = []
    for rows in others:
        other = _read_set(extractor, rows)
        figures = {measure.name: _measured(measure, real, other, settings) for measure in registered.FEATURE_MEASURES}
        if moments is not None:
            figures[FRECHET_DISTANCE.name] = _distance_to(moments, other, settings)
        sets.append(figures)
    return Comparison(real.features.shape[1], sets)


def _measured(measure: FeatureMeasure, real: FeatureSet, other: FeatureSet, settings: ComparisonSettings) -> Figure:
    refused = measure.refuses(real, other, settings)
    if refused:
        return Figure(value=None, refused=refused)
    return _figure(measure.compute(real, other, settings))


def _figure(estimate: Estimate) -> Figure:
    if math.isnan(estimate.value):
        return Figure(value=None, refused="no class has two images in both sets")
    if math.isnan(estimate.low) or math.isnan(estimate.high):  # too few images to resample
        return Figure(value=estimate.value)
    return Figure(value=estimate.value, low=estimate.low, high=estimate.high)


def _distance_to(moments: Moments, other: FeatureSet, settings: ComparisonSettings) -> Figure:
    """The Frechet distance to reference statistics."""
    refused = frechet_refusal(None, len(other), other.features.shape[1])
    if refused:
        return Figure(value=None, refused=refused)
    return _figure(estimate_frechet(moments, other, settings))


def _read_set(extractor: str, rows: SetRows) -> FeatureSet:
    names = (f"features/{extractor}", f"probabilities/{extractor}")
    stored = read_tensors(rows.folder, rows.positions, names)
    return FeatureSet(
        features=stored[names[0]],  # (n, f)
        probabilities=stored.get(names[1]),  # (n, y)
        labels=torch.from_numpy(rows.labels),  # (n,)
    )

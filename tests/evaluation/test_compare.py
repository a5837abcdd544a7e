"""Figures of very few images: without an interval where resamples have none, and always writable as JSON."""

import json
from dataclasses import asdict

import pytest
import torch

from components.evaluation.compare import _measured
from components.evaluation.measures import registered
from components.evaluation.measures.kinds import ComparisonSettings, FeatureSet


def random_set(count):
    generator = torch.Generator().manual_seed(count)
    labels = torch.full((count,), -1)
    return FeatureSet(features=torch.randn(count, 4, generator=generator), probabilities=None, labels=labels)


@pytest.mark.parametrize("measure", registered.FEATURE_MEASURES, ids=lambda measure: measure.name)
@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_a_figure_of_few_images_is_finite_or_refused(measure, count):
    figure = _measured(measure, random_set(11), random_set(count), ComparisonSettings(bootstrap=5))
    json.dumps(asdict(figure), allow_nan=False)  # raises for NaN and infinity
    assert (figure.value is None) == bool(figure.refused)


def test_enough_images_have_an_interval():
    figures = [
        _measured(measure, random_set(40), random_set(30), ComparisonSettings(bootstrap=5))
        for measure in registered.FEATURE_MEASURES
        if measure.name == "kernel_distance"
    ]
    assert figures and all(figure.low < figure.value < figure.high for figure in figures)

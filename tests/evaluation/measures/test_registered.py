"""Rules that every registered measure follows, so that its figures can be tracked and shown."""

import math
import re

import pytest
import torch

from components.evaluation.measures.kinds import ComparisonSettings, FeatureSet
from components.evaluation.measures.registered import FEATURE_MEASURES
from tests.evaluation.random_data import feature_set, normal_features

SETTINGS = ComparisonSettings(manifold_images=50, kernel_subsets=5, kernel_subset_size=30, bootstrap=20)
each_measure = pytest.mark.parametrize("measure", FEATURE_MEASURES, ids=lambda measure: measure.name)


def labelled_set(n, seed):
    """n images of 4 features, with probabilities of 3 classes and labels 0 to 2 in turn."""
    features = normal_features(n, 4, seed=seed)
    return feature_set(features, labels=torch.arange(n) % 3, probabilities=features[:, :3].softmax(dim=1).float())


def test_names_are_unique_and_can_be_tracked():
    names = [measure.name for measure in FEATURE_MEASURES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)


@each_measure
def test_values_are_shown_as_text_and_nan_as_missing(measure):
    assert re.match(r"0\.\d+", measure.show(0.0)) and measure.show(float("nan")) == "n/a"
    assert measure.title and measure.column and measure.meaning.endswith(".")


def test_charted_measures_are_tracked_per_share():
    assert all(measure.tracked_per_share for measure in FEATURE_MEASURES if measure.charted)


@each_measure
def test_every_measure_gives_the_same_estimate_twice_with_the_value_inside_its_interval(measure):
    real, others = labelled_set(70, 0), labelled_set(60, 1)
    state = torch.get_rng_state()
    assert measure.refuses(real, others, SETTINGS) == ""
    first = measure.compute(real, others, SETTINGS)
    again = measure.compute(labelled_set(70, 0), labelled_set(60, 1), SETTINGS)
    assert first == again and first.low < first.value < first.high
    assert torch.equal(torch.get_rng_state(), state)


@each_measure
def test_images_without_labels_and_probabilities_are_measured_or_refused_with_a_reason(measure):
    real, others = (feature_set(normal_features(40, 4, seed=seed)) for seed in range(2))
    reason = measure.refuses(real, others, SETTINGS)
    if measure.name in ("inception_score", "within_class_diversity"):
        assert re.search("needs (class probabilities|labels)", reason)
    else:
        assert reason == "" and math.isfinite(measure.compute(real, others, SETTINGS).value)


@each_measure
def test_a_single_image_is_measured_or_refused_with_a_reason(measure):
    real, others = labelled_set(40, 0), labelled_set(1, 1)
    if measure.name == "within_class_diversity":  # no class has two images: no value
        assert math.isnan(measure.compute(real, others, SETTINGS).value)
    else:
        assert re.search(r"(at least|more than) .*got 1", measure.refuses(real, others, SETTINGS))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(2), r"features \(n, f\) and labels \(n,\)"),
        (torch.full((3, 2), torch.nan), torch.zeros(3), "NaN"),
    ],
)
def test_malformed_sets_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        FeatureSet(features, None, labels)


@pytest.mark.parametrize("field", ["neighbours", "kernel_subsets", "splits", "kernel_subset_size", "bootstrap"])
def test_settings_out_of_range_are_refused(field):
    with pytest.raises(ValueError, match=field):
        ComparisonSettings(**{field: 0})
    with pytest.raises(ValueError, match="manifold_images must exceed neighbours=3"):
        ComparisonSettings(manifold_images=3)

"""Rules that every registered measure follows, so that its figures can be tracked and shown."""

import re

import pytest

from components.evaluation.measures.registered import FEATURE_MEASURES, GENERATOR_MEASURES


def test_names_are_unique_and_can_be_tracked():
    names = [measure.name for measure in (*FEATURE_MEASURES, *GENERATOR_MEASURES)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)


@pytest.mark.parametrize("measure", [*FEATURE_MEASURES, *GENERATOR_MEASURES], ids=lambda measure: measure.name)
def test_values_are_shown_as_text_and_nan_as_missing(measure):
    assert re.match(r"0\.\d+", measure.show(0.0)) and measure.show(float("nan")) == "n/a"
    assert measure.title and measure.meaning.endswith(".")


def test_charted_measures_are_tracked_per_share():
    assert all(measure.tracked_per_share for measure in FEATURE_MEASURES if measure.charted)

"""Settings of an extractor are checked before anything runs."""

import pytest

from components.evaluation.config import EvaluationConfig
from components.evaluation.features.config import FeaturesConfig


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"name": "Inception V3"}, "features.name must be lower case letters, digits and underscores"),
        ({"name": "judge"}, "features.name must not be 'judge', which every evaluation has"),
        ({"program": ""}, "must name a .pt2 file"),
        ({"channels": 2}, r"features.channels must be one of \(1, 3\), got 2"),
        ({"value_range": (1.0, -1.0)}, r"black below white, got \(1.0, -1.0\)"),
        ({"image_size": 0}, "image_size must be at least 1 or None, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FeaturesConfig(**{"name": "own", "program": "own.pt2", **changes})


def test_two_extractors_must_not_share_a_name():
    extractor = FeaturesConfig(name="own", program="own.pt2")
    with pytest.raises(ValueError, match="features must have different names"):
        EvaluationConfig(features=(extractor, extractor))

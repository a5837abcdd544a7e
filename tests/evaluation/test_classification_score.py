"""The schedule of the classification accuracy score's fits."""

import dataclasses

import pytest

from components.evaluation.classification_score import fit_schedule
from tests.evaluation.tiny import CONFIG


@pytest.mark.parametrize(
    ("images", "updates"),
    [(1_000_000, 1000), (1430, 1000), (128, 200), (40, 100), (4, 100)],
)
def test_a_fit_to_few_images_is_shorter(images, updates):
    config = dataclasses.replace(CONFIG, cas_updates=1000, cas_batch_size=64)
    assert fit_schedule(config, images).updates == updates


def test_a_fit_is_never_longer_than_the_config_says():
    assert fit_schedule(dataclasses.replace(CONFIG, cas_updates=30), 4).updates == 30

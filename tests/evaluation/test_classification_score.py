"""The schedule of the classification accuracy score's fits."""

import dataclasses

import pytest

from components.evaluation.classification_score import fit_schedule
from tests.evaluation.tiny import CONFIG


@pytest.mark.parametrize(
    ("images", "updates"),
    [(1_000_000, 1000), (40, 1000), (16, 500), (3, 100)],
)
def test_a_fit_to_a_handful_of_images_is_shorter(images, updates):
    config = dataclasses.replace(CONFIG, cas_updates=1000, cas_batch_size=64)
    assert fit_schedule(config, images).updates == updates


def test_a_fit_is_never_longer_than_the_config_says():
    assert fit_schedule(dataclasses.replace(CONFIG, cas_updates=30), 4).updates == 30

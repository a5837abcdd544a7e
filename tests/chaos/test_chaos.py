"""Two minutes of `make chaos`: fixed seeds, without Ray and without servers."""

import pytest

from tests.chaos.__main__ import opened_scenes, play_one
from tests.chaos.trials import Trial, draw_trial

pytestmark = pytest.mark.slow

FAULTS = (
    "driver killed",
    "driver interrupted",
    "driver stopped, successor",
    "two drivers at once",
    "write cut short",
    "image added",
    "image changed",
    "image removed",
    "clock put forward, two drivers",
)
POINTS = (0.12, 0.5, 0.93)
"""Before the dataset exists, among the shards, and between the last shard and the end."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with opened_scenes(tmp_path_factory.mktemp("chaos"), "encode/") as scenes:
        yield scenes[0]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("point", POINTS)
def test_the_dataset_is_that_of_an_undisturbed_run(scene, fault, point):
    trial = Trial(
        seed=1000 * FAULTS.index(fault) + int(100 * point), phase="encode", fault=fault, point=point, strength=0.4
    )
    assert play_one(scene, trial).problems == []


def test_a_seed_always_draws_the_same_trial(scene):
    trials = [draw_trial(seed, [scene]) for seed in range(300)]
    assert trials == [draw_trial(seed, [scene]) for seed in range(300)]
    assert {trial.fault for trial in trials} == set(scene.phases["encode"])

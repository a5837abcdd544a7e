"""How many samples of each class are drawn, and which of them a share keeps."""

import numpy as np
import pytest
import torch

from components.evaluation.config import EvaluationConfig
from components.evaluation.draws import apportion, evenly, plan_draws


def config(samples, **settings):
    return EvaluationConfig(samples=samples, keep=0.5, shares=(1.0, 0.5, 0.25), **settings)


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [(10, [1, 1], [5, 5]), (10, [20_000, 15], [10, 0]), (7, [1, 1, 1], [3, 2, 2]), (100, [3, 1], [75, 25])],
)
def test_samples_have_the_shares_of_the_training_images(total, weights, expected):
    assert apportion(total, weights) == expected


def test_whole_parts_are_within_one_of_the_exact_share():
    weights = np.random.default_rng(0).integers(1, 1000, 300)
    counts = apportion(5000, weights.tolist())
    assert sum(counts) == 5000 and np.abs(counts - 5000 * weights / weights.sum()).max() < 1


def test_every_share_keeps_equally_many_of_nested_draws():
    plan = plan_draws([30, 10], config(8))
    assert (plan.counts, plan.draws, plan.samples) == ((6, 2), (24, 8), 8)
    request = plan.request(seed=3)
    assert request.labels.tolist() == [0] * 24 + [1] * 8 and len(set(request.seeds.tolist())) == 32
    probability = torch.arange(32.0)  # the later, the better
    assert plan.kept(probability, 1.0).tolist() == [*range(6), 24, 25]
    assert plan.kept(probability, 0.5).tolist() == [*range(6, 12), 26, 27]
    assert plan.kept(probability, 0.25).tolist() == [*range(18, 24), 30, 31]


def test_a_class_too_rare_for_a_sample_is_left_out():
    plan = plan_draws([20_000, 15, 20_000], config(100))
    assert plan.counts == (50, 0, 50) and plan.draws == (200, 0, 200)
    kept = plan.kept(torch.rand(400), 0.25)
    assert len(kept) == 100 and (kept < 200).sum() == 50


def test_without_classes_all_draws_are_of_one_kind():
    plan = plan_draws([40], config(9))
    assert plan.draws == (36,) and plan.request(0).labels.tolist() == [0] * 36


def test_a_longer_draw_begins_with_the_shorter_one():
    short, long = (plan_draws([1, 1], config(samples)).request(5) for samples in (4, 8))
    assert long.seeds[:8].tolist() == short.seeds[:8].tolist()


def test_evenly_keeps_the_mix_of_classes():
    assert evenly(np.arange(10), 5).tolist() == [0, 2, 4, 6, 8] and evenly(np.arange(3), 9).tolist() == [0, 1, 2]


def test_there_must_be_training_images():
    with pytest.raises(ValueError, match="training images to compare samples with"):
        plan_draws([0, 0], config(4))

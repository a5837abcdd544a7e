"""Rejection sampling: the draws with the highest probability are kept, reproducibly."""

import pytest
import torch

from components.generator.rejection import (
    best_indices,
    draw_samples,
    draws_needed,
    generate_samples,
    labels_and_seeds,
    sample_seeds,
)


def reference_splitmix64(x):
    """splitmix64 with Python's unbounded integers."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@pytest.mark.parametrize(("seed", "label"), [(0, 0), (1, 2), (2**63 - 1, 999)])
def test_seeds_are_the_documented_mix(seed, label):
    expected = [
        reference_splitmix64((reference_splitmix64((reference_splitmix64(seed) + label) % 2**64) + index) % 2**64)
        for index in range(5)
    ]
    assert [value % 2**64 for value in sample_seeds(seed, label, 5).tolist()] == expected


def test_seeds_are_unique_across_seeds_and_labels():
    seeds = torch.cat([sample_seeds(seed, label, 100) for seed in range(10) for label in range(10)])
    assert len(seeds.unique()) == 10_000


def test_best_indices_agree_with_sorting():
    probability = torch.rand(4, 50, generator=torch.Generator().manual_seed(0)).mul(10).round()  # many ties
    for row, kept in zip(probability.tolist(), best_indices(probability, 12).tolist(), strict=True):
        assert kept == sorted(sorted(range(50), key=lambda index: (-row[index], index))[:12])


@pytest.mark.parametrize(("count", "keep", "draws"), [(1, 1.0, 1), (3, 0.1, 30), (7, 0.07, 100), (5, 0.3, 17)])
def test_draws_are_rounded_up_without_floating_point_error(count, keep, draws):
    assert draws_needed(count, keep) == draws


def test_generate_keeps_the_best_of_each_class(generator):
    kept = generate_samples(generator, classes=[2, 0], count=3, seed=5, keep=0.25)
    assert kept.labels.tolist() == [2, 2, 2, 0, 0, 0]
    for start, label in ((0, 2), (3, 0)):
        whole = draw_samples(generator, classes=[label], count=12, seed=5)
        expected = whole.probability.topk(3).values.sort().values
        torch.testing.assert_close(kept.probability[start : start + 3].sort().values, expected)
        assert set(kept.seeds[start : start + 3].tolist()) <= set(whole.seeds.tolist())


def test_the_same_request_gives_the_same_samples(generator):
    first, second = (generate_samples(generator, classes=[0, 1], count=2, seed=1, keep=0.5) for _ in range(2))
    torch.testing.assert_close(first.pixels, second.pixels, rtol=0, atol=0)


def test_given_upper_codes_are_shared_by_all_samples(generator):
    top = torch.tensor([[[1, 2], [3, 4]]])
    samples = generate_samples(generator, classes=[0, 2], count=2, seed=1, keep=0.5, given=[top], batch=3)
    assert torch.equal(samples.maps[0], top.expand(4, 2, 2))
    labels, seeds = labels_and_seeds([0, 2], 4, seed=1)
    whole = generator.sample(labels, seeds, given=[top.expand(8, 2, 2)])
    best = whole.probability.view(2, 4).topk(2).values.sort(dim=1).values
    torch.testing.assert_close(samples.probability.view(2, 2).sort(dim=1).values, best)


def test_the_report_counts_draws_not_samples(generator):
    reports = []
    generate_samples(
        generator, classes=[0], count=2, seed=1, keep=0.5, batch=3, report=lambda *counts: reports.append(counts)
    )
    assert reports == [(0, 4), (3, 4), (4, 4)]


def test_a_longer_draw_begins_with_the_shorter(generator):
    short, long = (draw_samples(generator, classes=[1], count=count, seed=3) for count in (2, 6))
    torch.testing.assert_close(long.maps[1][:2], short.maps[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": []}, "at least one of 0 .. 2"),
        ({"classes": [0, 3]}, r"classes must lie in 0 \.\. 2, got \[3\]"),
        ({"classes": [1, 1]}, "classes must differ"),
        ({"count": 0}, "count must be at least 1"),
        ({"keep": 0.0}, r"keep must lie in \(0, 1\]"),
        ({"keep": float("nan")}, r"keep must lie in \(0, 1\]"),
        ({"seed": -1}, "seed must lie in 0 .. 2"),
    ],
)
def test_bad_arguments_of_generate_are_refused(generator, change, message):
    with pytest.raises(ValueError, match=message):
        generate_samples(generator, **{"classes": [0], "count": 1, "seed": 0, **change})

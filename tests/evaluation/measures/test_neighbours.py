"""Precision, recall, density and coverage compared with their definitions and with scikit-learn's neighbours."""

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from components.evaluation.measures import distances, neighbours
from components.evaluation.measures.kinds import ComparisonSettings
from components.evaluation.measures.neighbours import COVERAGE, DENSITY, PRECISION, RECALL, find_memberships
from tests.evaluation.random_data import feature_set, normal_features, normal_set

SETTINGS = ComparisonSettings(neighbours=3)
MEASURES = (PRECISION, RECALL, DENSITY, COVERAGE)


def values_of(real, others, settings=SETTINGS):
    return [measure.compute(real, others, settings).value for measure in MEASURES]


def slow_balls(points, members, k):
    """For each point, which members' balls hold it: rows of booleans."""
    radii = [sorted((member - other).norm().item() for other in members)[k] for member in members]
    return [[(point - m).norm().item() <= radius for m, radius in zip(members, radii, strict=True)] for point in points]


def test_the_four_measures_agree_with_their_definitions(monkeypatch):
    monkeypatch.setattr(distances, "ROWS_PER_CHUNK", 7)
    real, others = normal_set(30, 3), normal_set(20, 3, seed=1, shift=1.5)
    of_real, of_others = slow_balls(others.features, real.features, 3), slow_balls(real.features, others.features, 3)
    expected = [
        sum(any(row) for row in of_real) / 20,
        sum(any(row) for row in of_others) / 30,
        sum(sum(row) for row in of_real) / (3 * 20),
        sum(any(row[i] for row in of_real) for i in range(30)) / 30,
    ]
    assert values_of(real, others) == pytest.approx(expected)
    assert all(0 < value < 1 for value in expected)


def test_many_features_agree_with_scikit_learn():
    real, others = normal_features(300, 64).float() + 5, normal_features(200, 64, seed=1).float() * 1.05 + 5
    found = find_memberships(real, others, 5)
    search = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(real)
    radii = search.kneighbors(real)[0][:, 5]
    gaps = torch.cdist(others.double(), real.double(), compute_mode="donot_use_mm_for_euclid_dist")  # (200, 300)
    within = gaps <= torch.from_numpy(radii)
    assert found.others_in_real.tolist() == within.any(1).tolist()
    assert found.real_covered.tolist() == within.any(0).tolist()
    assert found.balls_per_other.tolist() == within.sum(1).tolist()


def test_a_set_among_its_own_copies_counts_every_tie():
    real = normal_set(500, 40, shift=3)
    copies = feature_set(real.features.clone())
    assert values_of(real, copies) == pytest.approx([1, 1, 4 / 3, 1])  # 3 neighbours and the image itself


def test_equal_images_lie_in_balls_of_radius_zero():
    real, others = feature_set(torch.ones(10, 4)), feature_set(torch.ones(8, 4))
    assert values_of(real, others)[:2] == [1, 1]
    assert values_of(real, feature_set(torch.ones(8, 4) * 1.001))[:2] == [0, 0]


def test_real_images_have_density_and_coverage_near_the_expected(n=2000):
    density, coverage = values_of(normal_set(n, 8), normal_set(n, 8, seed=1))[2:]
    assert density == pytest.approx(1, abs=0.05)  # Naeem et al. 2020, lemma 1
    k = SETTINGS.neighbours
    expected = 1 - torch.tensor([(n - i) / (2 * n - i) for i in range(1, k + 1)]).prod().item()  # about: their lemma 2
    assert coverage == pytest.approx(expected, abs=0.04)


def test_larger_sets_are_represented_by_a_subset_drawn_by_the_seed():
    real, others = normal_set(300, 4), normal_set(200, 4, seed=1, shift=0.5)
    first, again, other = (
        values_of(real, others, ComparisonSettings(manifold_images=50, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))[:50]
    rows = neighbours.drawn_rows(300, ComparisonSettings(manifold_images=50, seed=1))
    assert set(rows.tolist()) == set(order.tolist())


def test_the_subset_of_sets_sorted_by_class_holds_every_class_in_proportion():
    labels = torch.tensor([0] * 9000 + [1] * 1000)
    chosen = labels[neighbours.drawn_rows(10_000, ComparisonSettings(manifold_images=500))]
    assert (chosen == 1).double().mean().item() == pytest.approx(0.1, abs=0.04)


def test_the_four_measures_share_one_pass_and_only_of_the_same_sets_and_settings(monkeypatch):
    calls = []
    original = neighbours.find_memberships
    monkeypatch.setattr(neighbours, "find_memberships", lambda *args: calls.append(args[2]) or original(*args))
    real, others = normal_set(30, 3), normal_set(20, 3, seed=1)
    values_of(real, others)
    assert calls == [3]
    values_of(real, others, ComparisonSettings(neighbours=4))
    values_of(normal_set(30, 3, seed=2), others, ComparisonSettings(neighbours=4))
    assert calls == [3, 4, 4]


@pytest.mark.parametrize("sizes", [(10, 3), (3, 10)])
def test_too_few_images_for_neighbours_are_refused(sizes):
    real, others = (normal_set(size, 2) for size in sizes)
    assert "more than neighbours=3 images, got 3" in PRECISION.refuses(real, others, SETTINGS)
    with pytest.raises(ValueError, match="more than neighbours=3 images, got 3"):
        PRECISION.compute(real, others, SETTINGS)

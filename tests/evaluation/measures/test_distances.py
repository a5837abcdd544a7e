"""Distances by products compared with differences."""

import torch

from components.evaluation.measures import distances
from components.evaluation.measures.distances import squared_distance_rows
from tests.evaluation.random_data import normal_features


def test_products_give_the_distances_of_differences(monkeypatch):
    monkeypatch.setattr(distances, "ROWS_PER_CHUNK", 7)
    points, members = normal_features(30, 5).float() + 50, normal_features(20, 5, seed=1).float() + 50
    found = torch.cat(list(squared_distance_rows(points, members)))
    expected = (points.double()[:, None] - members.double()).square().sum(dim=2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_equal_points_are_at_distance_exactly_0_and_small_distances_are_not():
    points = (normal_features(200, 2048) * 30 + 100).float()
    near = points.clone()
    near[:, 7] += 0.01
    assert torch.cat(list(squared_distance_rows(points, points))).diagonal().abs().max() == 0
    found = torch.cat(list(squared_distance_rows(points, near))).diagonal().sqrt()
    torch.testing.assert_close(found, torch.full_like(found, 0.01), rtol=2e-2, atol=0)

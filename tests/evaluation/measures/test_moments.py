"""Moments made in chunks and merged, compared with numpy's; the field's files."""

import io

import numpy as np
import pytest
import torch

from components.evaluation.measures import moments
from components.evaluation.measures.moments import Moments
from tests.evaluation.random_data import normal_features


def assert_moments(found, features):
    assert found.count == len(features)
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), rtol=1e-10, atol=1e-12)


def test_moments_in_chunks_are_numpys(monkeypatch):
    monkeypatch.setattr(moments, "ROWS_PER_PRODUCT", 7)
    features = normal_features(30, 5) + 100  # far from 0, where a sum of squares would cancel
    assert_moments(Moments.of(features), features.numpy())


@pytest.mark.parametrize("sizes", [(1, 1, 28), (10, 20), (29, 1)])
def test_merged_moments_are_those_of_all_images(sizes):
    features = normal_features(30, 5) + 100
    first, *rest = (Moments.of(part) for part in features.split(sizes))
    for part in rest:
        first = first.merge(part)
    assert_moments(first, features.numpy())


def test_files_of_statistics_are_the_fields(tmp_path):
    written = Moments.of(normal_features(9, 3))
    written.to_npz(tmp_path / "reference.npz")
    with np.load(tmp_path / "reference.npz") as arrays:
        np.testing.assert_array_equal(arrays["mu"], written.mean)
        np.testing.assert_array_equal(arrays["sigma"], written.covariance)
    assert Moments.from_npz(tmp_path / "reference.npz").count == 9


def test_a_published_file_has_an_unknown_count_and_any_float_type():
    file = io.BytesIO()
    np.savez(file, mu=np.ones(3, np.float32), sigma=np.eye(3, dtype=np.float32))
    file.seek(0)
    read = Moments.from_npz(file)
    assert read.count is None and read.mean.dtype == read.covariance.dtype == torch.float64
    kept = io.BytesIO()
    read.to_npz(kept)
    assert kept.seek(0) == 0 and Moments.from_npz(kept).count is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.ones(3)}, "must hold mu and sigma, got \\['mean'\\]"),
        ({"mu": np.ones(3), "sigma": np.eye(4)}, r"got \(3,\) and \(4, 4\)"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "finite"),
        ({"mu": np.array([{}] * 3), "sigma": np.eye(3)}, "allow_pickle=False"),
    ],
)
def test_other_files_are_refused_and_nothing_is_unpickled(arrays, message):
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    with pytest.raises(ValueError, match=message):
        Moments.from_npz(file)

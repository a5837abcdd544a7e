"""Programs and statistics from the paths that a config names."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.exported import export
from components.evaluation.features.stored import load_features, read_program_digest, read_statistics


class Means(nn.Module):
    """Three features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture
def config(tmp_path):
    (tmp_path / "means.pt2").write_bytes(export(Means()))
    return FeaturesConfig(name="means", program=f"{tmp_path}/means.pt2", statistics=f"{tmp_path}/means.npz")


def test_a_program_is_read_and_known_by_the_digest_of_its_file(config, tmp_path):
    program = load_features(config, channels=1, image_size=16)
    digest = hashlib.sha256((tmp_path / "means.pt2").read_bytes()).hexdigest()
    assert program.digest == read_program_digest(config) == digest
    assert program(torch.full((2, 16, 16, 1), 7, dtype=torch.uint8)).features.tolist() == [[7.0] * 3] * 2


def test_a_missing_program_is_named():
    with pytest.raises(ValueError, match=r"the program of 'own' must be a file, found nothing at /nowhere/own\.pt2"):
        load_features(FeaturesConfig(name="own", program="/nowhere/own.pt2"), channels=3, image_size=16)


def test_statistics_must_be_of_the_program_s_features(config, tmp_path):
    np.savez(tmp_path / "means.npz", mu=np.arange(3.0), sigma=np.eye(3))
    assert read_statistics(config, features=3).mean.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="must be of the program's 4 features, got 3: make them with this program"):
        read_statistics(config, features=4)

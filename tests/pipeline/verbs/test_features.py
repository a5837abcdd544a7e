"""`features`: reference statistics of a folder and of a snapshot, beside NumPy's."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from components.config import to_plain
from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.exported import export
from components.evaluation.features.program import FeatureProgram
from components.images.commit import commit_snapshot
from components.images.config import AugmentConfig, ImagesConfig
from components.images.snapshot import open_snapshot, read_snapshot
from components.images.sources.registry import list_images
from components.images.split import TRAIN
from components.progress import Progress
from pipeline.cli import main
from pipeline.config_files import load_config
from pipeline.verbs.features import accumulate_moments, training_images


class Quarters(nn.Module):
    """Mean brightness of the four quarters."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(images[:, :1], 2).flatten(1)


@pytest.fixture(scope="module")
def quarters():
    return export(Quarters())


@pytest.fixture
def config(quarters, tmp_path):
    """A config file: the digits preset with an extractor named quarters."""

    (tmp_path / "quarters.pt2").write_bytes(quarters)
    plain = to_plain(load_config("digits"))
    plain["evaluation"]["features"] = [{"name": "quarters", "program": f"{tmp_path}/quarters.pt2"}]
    plain["state"] = f"{tmp_path}/state"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    return tmp_path / "config.yaml"


def quarters_of(pixels: np.ndarray) -> np.ndarray:
    """(n, 4) of uint8 (n, 32, 32, 1)."""
    return pixels.astype(np.float64).reshape(-1, 2, 16, 2, 16).mean(axis=(2, 4)).reshape(-1, 4)


def test_statistics_of_a_folder_are_numpy_s(config, tmp_path, capsys):
    digits = np.kron(load_digits().images[:150] * 15, np.ones((4, 4))).astype(np.uint8)  # (n, 32, 32)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(digits):
        Image.fromarray(image).save(tmp_path / "images" / f"{number:03}.png")
    out, folder = f"{tmp_path}/out/quarters.npz", f"{tmp_path}/images"
    assert main(["features", "statistics", str(config), out, "--features", "quarters", "--images", folder]) == 0
    with np.load(out) as stored:
        np.testing.assert_allclose(stored["mu"], quarters_of(digits).mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(stored["sigma"], np.cov(quarters_of(digits), rowvar=False), rtol=1e-5)
        assert stored["count"] == 150
    printed = capsys.readouterr().out
    assert "150/150 images" in printed and "images/s" in printed and "over 150 images, program" in printed


def test_few_images_and_an_unknown_extractor_are_told(config, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("L", (32, 32), 50 * number).save(tmp_path / "images" / f"{number}.png")
    command = ["features", "statistics", str(config), f"{tmp_path}/o.npz", "--images", f"{tmp_path}/images"]
    assert main([*command, "--features", "quarters"]) == 0
    assert "fewer than 8 images: no Fréchet distance" in capsys.readouterr().out
    assert main([*command, "--features", "inception"]) == 2
    assert "must have an extractor named 'inception', it has quarters" in capsys.readouterr().err


def test_without_a_run_the_command_says_what_to_do(config, tmp_path, capsys):
    assert main(["features", "statistics", str(config), f"{tmp_path}/o.npz", "--features", "quarters"]) == 2
    assert "nothing has run yet" in capsys.readouterr().err and not (tmp_path / "o.npz").exists()


def test_a_snapshot_gives_its_training_images_without_copies(quarters, tmp_path):
    images = ImagesConfig(source="digits", image_size=32, channels=1, augment=AugmentConfig(copies=2, degrees=10))
    commit_snapshot(str(tmp_path), list_images(images, str(tmp_path)), [], images, seed=0)
    program = FeatureProgram(quarters, FeaturesConfig(name="quarters", program="x.pt2"))
    stored = open_snapshot(str(tmp_path))
    moments = accumulate_moments(program, training_images(stored), Progress())
    originals = read_snapshot(str(tmp_path)).originals(TRAIN).num_rows
    pixels = torch.cat([chunk.pixels for chunk in training_images(stored)]).numpy()
    assert moments.count == len(pixels) == originals < 1797
    np.testing.assert_allclose(moments.mean, quarters_of(pixels).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.covariance, np.cov(quarters_of(pixels), rowvar=False), rtol=1e-5)

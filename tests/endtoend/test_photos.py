"""A folder of photos without classes, from the files to a registered generator and samples of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from benchmarks.tiny import FITS
from tests.endtoend.conftest import Place

pytestmark = pytest.mark.slow

PHOTOS = 40


def take_photos(folder: Path) -> Path:
    """Forty crops of two real photos, directly in `folder`."""
    folder.mkdir(parents=True)
    pictures, random = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")], np.random.default_rng(0)
    for number in range(PHOTOS):
        picture = pictures[number % 2]
        y, x = random.integers(0, picture.shape[0] - 48), random.integers(0, picture.shape[1] - 48)
        Image.fromarray(picture[y : y + 48, x : x + 48]).save(folder / f"IMG_{number:04}.jpg")
    return folder


def test_photos_become_a_registered_generator_that_draws_samples(tmp_path):
    images = take_photos(tmp_path / "photos")
    shortened = [f"{fit}.training.updates=6" for fit in FITS]
    place = Place(tmp_path)
    result = place.run_without_ray(
        "images.source=folder", f"images.uri={images}", "images.channels=3", "name=photos", *shortened
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "classifier: the images have no classes, so that no sample is rejected; nothing to fit" in result.stdout
    assert "sample models:/photos-generator@champion --count 8\n" in result.stdout  # the summary does not offer --keep
    drawn = place.pipeline("sample", "models:/photos-generator@champion", "--count", "3", "--keep", "0.5")
    assert drawn.returncode == 0 and "keep 0.5 is ignored" in drawn.stdout, drawn.stdout + drawn.stderr
    pictures = [np.asarray(Image.open(tmp_path / "samples" / f"sample-{n}-seed0.png")) for n in range(3)]
    assert [picture.shape for picture in pictures] == [(32, 32, 3)] * 3
    assert len({picture.tobytes() for picture in pictures}) == 3

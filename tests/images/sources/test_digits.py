"""The bundled digits, compared with scikit-learn's arrays."""

import io

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from components.images.config import ImagesConfig
from components.images.sources.digits import DIGITS_FILE
from components.images.sources.registry import list_images

DIGITS = ImagesConfig(source="digits", image_size=32, channels=1)


def test_all_digits_are_packed_and_enlarged_smoothly(tmp_path, fetch_image):
    listing = list_images(DIGITS, str(tmp_path))
    packed = [fetch_image(row) for row in listing.table.to_pylist()]
    assert len(packed) == 1797 and listing.classes == tuple("0123456789")
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in packed])
    means = pixels.reshape(-1, 8, 4, 8, 4).mean((2, 4)) / 255 * 16
    original = load_digits()
    assert pixels.shape[1:] == (32, 32) and np.corrcoef(means.ravel(), original.images.ravel())[0, 1] > 0.98
    assert listing.table["label"].to_pylist() == original.target.tolist()


def test_digits_give_the_same_bytes_twice(tmp_path):
    first, second = (list_images(DIGITS, str(tmp_path / name)) for name in ("a", "b"))
    assert first.files == second.files and first.digest() == second.digest()
    assert (tmp_path / "a" / DIGITS_FILE).read_bytes() == (tmp_path / "b" / DIGITS_FILE).read_bytes()
    assert pq.read_schema(tmp_path / "a" / DIGITS_FILE).names == ["key", "image", "label"]

"""Images made by Pillow, and settings to read them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.images.config import ImagesConfig


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """encoded(image, kind, **options): the image as the bytes of a file."""

    def encode(image: Image.Image, kind: str, **options) -> bytes:
        sink = io.BytesIO()
        image.save(sink, kind, **options)
        return sink.getvalue()

    return encode


@pytest.fixture
def settings() -> Callable[..., ImagesConfig]:
    """settings(**changes): a small folder source."""
    return lambda **changes: ImagesConfig(**{"source": "folder", "uri": "unused", "image_size": 16, **changes})


@pytest.fixture
def photo() -> Image.Image:
    """Smooth colours that differ in every corner: 48 wide, 32 high."""
    y, x = np.mgrid[0:32, 0:48]
    return Image.fromarray(np.stack([x * 5, y * 7, 255 - x * 2 - y * 4], -1).astype(np.uint8))


@pytest.fixture
def tree(tmp_path, photo) -> Path:
    """Two classes of 30 images each."""
    root = tmp_path / "pets"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(30):
            photo.rotate(number * 6).save(root / name / f"{number:02}.png")
    return root

"""Images made by Pillow, and settings to read them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.images.config import ImagesConfig
from components.images.fetch import Row, fetch_images
from components.images.sources.ranges import ByteRange
from components.store import objects


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


@pytest.fixture
def fetch_image() -> Callable[[Row], bytes]:
    """fetch_image(row): the encoded image of one row; raises what `fetch_images` gives instead of it."""

    def fetch(row: Row) -> bytes:
        (image,) = fetch_images([row])
        if isinstance(image, Exception):
            raise image
        return image

    return fetch


@pytest.fixture
def requests(monkeypatch) -> list[ByteRange]:
    """Every range that is read from a stored file from now on."""
    asked: list[ByteRange] = []

    def read_range(uri: str, start: int | None, stop: int | None, read=objects.read_range) -> bytes:
        data = read(uri, start, stop)
        asked.append(ByteRange(start or 0, len(data)))
        return data

    monkeypatch.setattr(objects, "read_range", read_range)
    return asked

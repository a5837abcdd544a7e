"""Grids of images as PNG, for people to look at. Arrays are uint8 (n, h, w, c), c = 1 or 3."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from components.config import require

Pixels = NDArray[np.uint8]

SMALLEST_CELL, LARGEST_CELL = 56, 256
"""Smallest and largest side in pixels of an image in a grid: smaller images are enlarged, larger ones reduced."""
PAPER, INK = (255, 255, 255), (64, 68, 76)
"""Colours of the background and of the labels."""
MARGIN, GAP = 12, 4
"""Pixels around a grid and between its cells."""
FONT_SIZE = 14
WRAPPED_COLUMNS = 10
"""Images per row where samples have no classes to begin rows with."""
MAX_CLASSES_SHOWN = 20
"""Most classes that a grid of samples shows, one row each."""


def to_png(pixels: Pixels) -> bytes:
    """One image (h, w, c) as PNG, pixel for pixel."""
    return _encode(_image(pixels))


def from_png(data: bytes, channels: int) -> Pixels:
    """Image (h, w, c) of a PNG or JPEG; raises ValueError when `data` is neither."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"an image must be a PNG or JPEG file, got {len(data)} bytes: {data[:8]!r}...") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def image_grid(rows: Sequence[Pixels], row_labels: Sequence[str] | None = None, scale: int | None = None) -> bytes:
    """Rows of equally sized images (n, h, w, c) as one PNG, each row with its label to the left.

    `scale` is the integer factor by which each image is enlarged, without smoothing; None enlarges a small image until
    its short side is at least SMALLEST_CELL, and reduces a large one until its long side is LARGEST_CELL.
    Rows may differ in length. Raises ValueError for images of different shapes or of another type than uint8.
    """
    _check_rows(rows, row_labels)
    height, width = _cell_size(rows[0].shape[1], rows[0].shape[2], scale)
    font = ImageFont.load_default(FONT_SIZE)
    labels = row_labels or [""] * len(rows)
    gutter = max(math.ceil(font.getlength(label)) for label in labels)  # width of the widest label in pixels
    left = MARGIN + (gutter + MARGIN if gutter else 0)  # x of the first column of images
    columns = max(len(row) for row in rows)  # rows may differ in length
    size = (left + columns * (width + GAP) - GAP + MARGIN, 2 * MARGIN + len(rows) * (height + GAP) - GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for y, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = MARGIN + y * (height + GAP)
        draw.text((left - MARGIN, top + height / 2), label, fill=INK, font=font, anchor="rm")
        for x, pixels in enumerate(row):
            sheet.paste(_resized(_image(pixels), (width, height)), (left + x * (width + GAP), top))
    return _encode(sheet)


def reconstruction_grid(original: Pixels, reconstruction: Pixels, columns: int = 10) -> bytes:
    """Originals (n, h, w, c) above their reconstructions, `columns` images per row."""
    require(
        original.shape == reconstruction.shape,
        f"reconstructions must have the originals' shape {original.shape}, got {reconstruction.shape}",
    )
    rows: list[Pixels] = []
    for start in range(0, len(original), columns):
        rows += [original[start : start + columns], reconstruction[start : start + columns]]
    return image_grid(rows, ["original", "reconstruction"] * (len(rows) // 2))


def prefix_grid(original: Pixels, prefixes: Mapping[str, Pixels]) -> bytes:
    """Figure 3 of the paper: decoded from the top level alone, from the top two, ..., and the originals last.

    `prefixes` maps the levels that were decoded ('top', 'top + bottom') to images (n, h, w, c) in the originals' order.
    """
    for name, pixels in prefixes.items():
        require(pixels.shape == original.shape, f"'{name}' must have shape {original.shape}, got {pixels.shape}")
    return image_grid([*prefixes.values(), original], [*prefixes, "original"])


def sample_grid(samples: Mapping[str, Pixels]) -> bytes:
    """One row per class: name -> images (n, h, w, c). The samples of a single class continue in further rows."""
    if len(samples) > 1:
        return image_grid(list(samples.values()), list(samples))
    rows = [(name, row[first : first + WRAPPED_COLUMNS]) for name, row in samples.items() for first in _row_starts(row)]
    return image_grid([row for _, row in rows], [name if index == 0 else "" for index, (name, _) in enumerate(rows)])


def _row_starts(images: Pixels) -> range:
    """Numbers of the first images of rows; one row where there are no images."""
    return range(0, max(1, len(images)), WRAPPED_COLUMNS)


def _check_rows(rows: Sequence[Pixels], row_labels: Sequence[str] | None) -> None:
    require(len(rows) > 0 and all(len(row) > 0 for row in rows), "a grid needs at least one image per row, got none")
    shapes = {row.shape[1:] for row in rows}
    require(len(shapes) == 1, f"images of a grid must have one shape, got {sorted(shapes)}")
    require(rows[0].ndim == 4 and rows[0].shape[3] in (1, 3), f"a row must be (n, h, w, 1 or 3), got {rows[0].shape}")
    require(all(row.dtype == np.uint8 for row in rows), f"images must be uint8, got {[str(row.dtype) for row in rows]}")
    fits = row_labels is None or len(row_labels) == len(rows)
    require(fits, f"row_labels must be one per row ({len(rows)}), got {row_labels}")


def _cell_size(height: int, width: int, scale: int | None) -> tuple[int, int]:
    """Height and width in pixels at which a grid shows an image."""
    if scale is None:
        short, long = min(height, width), max(height, width)
        if long > LARGEST_CELL:
            return round(height * LARGEST_CELL / long), round(width * LARGEST_CELL / long)
        scale = math.ceil(SMALLEST_CELL / short)
    require(scale >= 1, f"scale must be at least 1, got {scale}")
    return height * scale, width * scale


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # Nearest keeps the pixels of small images visible; Lanczos reduces large ones without aliasing.
    enlarged = size[0] >= image.width
    return image.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def _image(pixels: Pixels) -> Image.Image:
    require(pixels.dtype == np.uint8, f"an image must be uint8, got {pixels.dtype}")
    require(pixels.ndim == 3 and pixels.shape[2] in (1, 3), f"an image must be (h, w, 1 or 3), got {pixels.shape}")
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

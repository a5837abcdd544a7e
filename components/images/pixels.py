"""From rows of a snapshot to pixels; every step reads images through this file."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from components.images.augment import augment
from components.images.config import PixelConfig
from components.images.decode import UnusableImage, decode_image
from components.images.fetch import FetchError, ImageChanged, Row, map_images


class Refusal(NamedTuple):
    """Why one image cannot be used."""

    reason: str
    error: str


class PixelReader:
    """Reads, decodes and augments the rows of a snapshot."""

    def __init__(self, config: PixelConfig, seed: int) -> None:
        """`seed` fixes the augmented copies; images themselves do not depend on it."""
        self._config = config
        self._seed = seed

    def read(self, rows: pa.Table) -> np.ndarray:
        """Pixels of the rows, uint8 (n, image_size, image_size, channels), in their order.

        Raises StorageError, FileNotFoundError or UnusableImage for any image that cannot be read: all rows of a
        snapshot were readable when it was taken, so either the store fails or files were changed since.
        """
        pixels = self._blank(rows.num_rows)
        for row_number, image in self._images(rows):
            if isinstance(image, Exception):
                raise image
            pixels[row_number] = image
        return pixels

    def read_usable(
        self, rows: pa.Table, *, changed_is_unusable: bool = False
    ) -> tuple[np.ndarray, dict[int, Refusal]]:
        """As `read`, for rows that may be unusable: these are black, and listed by row number.

        An image is refused only if every reading would fail, or if the store confirms that it is missing; with
        `changed_is_unusable` also if it is not the image that was listed. Raises StorageError otherwise.
        """
        pixels, refused = self._blank(rows.num_rows), {}
        for row_number, image in self._images(rows):
            if isinstance(image, UnusableImage):
                refused[row_number] = Refusal(image.reason, image.detail)
            elif isinstance(image, FileNotFoundError):
                refused[row_number] = Refusal("missing", "the store lists it and does not have it")
            elif isinstance(image, ImageChanged) and changed_is_unusable:
                refused[row_number] = Refusal("changed", str(image))
            elif isinstance(image, Exception):
                raise image
            else:
                pixels[row_number] = image
        return pixels, refused

    def _blank(self, rows: int) -> np.ndarray:
        side, channels = self._config.image_size, self._config.channels
        return np.zeros((rows, side, side, channels), np.uint8)

    def _images(self, rows: pa.Table) -> Iterator[tuple[int, np.ndarray | FetchError]]:
        """(row number, pixels or the error) of each row, in any order. Copies of an image are decoded together."""
        copies: dict[str, list[tuple[int, Row]]] = {}  # (row number, row) of each image's rows, by key
        for row_number, row in enumerate(rows.to_pylist()):
            copies.setdefault(row["key"], []).append((row_number, row))
        firsts = [rows_of_image[0][1] for rows_of_image in copies.values()]
        for first, image in map_images(firsts, lambda encoded: decode_image(encoded, self._config)):
            for row_number, row in copies[first["key"]]:
                yield row_number, image if isinstance(image, Exception) else self._copy(image, row)

    def _copy(self, original: np.ndarray, row: Row) -> np.ndarray:
        return augment(original, self._config.augment, seed=self._seed, key=row["key"], copy=row["copy"])

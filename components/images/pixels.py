"""From rows of a snapshot to pixels; every step reads images through this file."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from components.images.augment import augment
from components.images.config import PixelConfig
from components.images.decode import UnusableImage, decode_image
from components.images.fetch import ImageChanged, Row, fetch_images, join_rows

REMOTE_READS = 16
"""Images requested at the same time from an object store, where a read has a long latency and costs little CPU."""


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

    def _images(self, rows: pa.Table) -> Iterator[tuple[int, np.ndarray | Exception]]:
        """(row number, pixels or the error) of each row, in any order. Copies of an image are decoded together."""
        copies: dict[str, list[tuple[int, Row]]] = {}  # (row number, row) of each image's rows, by key
        for row_number, row in enumerate(rows.to_pylist()):
            copies.setdefault(row["key"], []).append((row_number, row))
        groups = list(join_rows([image[0][1] for image in copies.values()]))
        # Local images are decoded in this thread: decoding would compete for the same CPU.
        threads = REMOTE_READS if any("://" in group[0]["uri"] for group in groups) else 1
        with ThreadPoolExecutor(threads) as pool:
            decoded = pool.map(self._decoded, groups) if threads > 1 else map(self._decoded, groups)
            for group, images in zip(groups, decoded, strict=True):
                for first, image in zip(group, images, strict=True):
                    for row_number, row in copies[first["key"]]:
                        yield row_number, image if isinstance(image, Exception) else self._copy(image, row)

    def _decoded(self, group: Sequence[Row]) -> list[np.ndarray | Exception]:
        """Pixels, or the error, of images that are read at once: the caller decides whether an error is fatal."""
        return [image if isinstance(image, Exception) else self._decode(image) for image in fetch_images(group)]

    def _decode(self, encoded: bytes) -> np.ndarray | UnusableImage:
        try:
            return decode_image(encoded, self._config)
        except UnusableImage as error:
            return error

    def _copy(self, original: np.ndarray, row: Row) -> np.ndarray:
        return augment(original, self._config.augment, seed=self._seed, key=row["key"], copy=row["copy"])

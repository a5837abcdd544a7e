"""From rows of a snapshot to pixels: the one way in which every step reads images."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from components.errors import StorageError
from components.images.augment import augment
from components.images.config import ImagesConfig
from components.images.decode import UnusableImage, decode_image
from components.images.fetch import fetch_image

REMOTE_READS = 16
"""Images asked for at the same time from an object store, whose answers take long and cost no CPU."""


class Refusal(NamedTuple):
    """One image that cannot be used, whenever it is read."""

    reason: str
    error: str


class PixelReader:
    """Reads, decodes and augments the rows of a snapshot."""

    def __init__(self, config: ImagesConfig, seed: int) -> None:
        self._config = config
        self._seed = seed

    def read(self, rows: pa.Table) -> np.ndarray:
        """Pixels of the rows, uint8 (n, image_size, image_size, channels), in their order.

        Any failure raises (StorageError, FileNotFoundError, Unusable): rows of a snapshot were readable once, so a
        failure is the store's, or the files were changed behind the snapshot's back.
        """
        pixels = self._blank(rows.num_rows)
        for place, image in self._images(rows):
            if isinstance(image, Exception):
                raise image
            pixels[place] = image
        return pixels

    def read_usable(self, rows: pa.Table) -> tuple[np.ndarray, dict[int, Refusal]]:
        """As `read`, for rows that nobody has looked at: what cannot be used stays black and is told by its place.

        Only what would fail at every reading is refused, or what the store confirms to be missing; a store that
        cannot be read raises StorageError.
        """
        pixels, refused = self._blank(rows.num_rows), {}
        for place, image in self._images(rows):
            if isinstance(image, UnusableImage):
                refused[place] = Refusal(image.reason, image.detail)
            elif isinstance(image, FileNotFoundError):
                refused[place] = Refusal("missing", "the store lists it and does not have it")
            elif isinstance(image, Exception):
                raise image
            else:
                pixels[place] = image
        return pixels, refused

    def _blank(self, rows: int) -> np.ndarray:
        side, channels = self._config.image_size, self._config.channels
        return np.zeros((rows, side, side, channels), np.uint8)

    def _images(self, rows: pa.Table) -> Iterator[tuple[int, np.ndarray | Exception]]:
        """(place, pixels or what went wrong) of each row; copies of an image lie together and are decoded once."""
        listed = rows.to_pylist()
        firsts = [
            row for last, row in zip([None, *listed], listed, strict=False) if not last or row["key"] != last["key"]
        ]
        threads = REMOTE_READS if any("://" in row["uri"] for row in firsts) else 1
        with ThreadPoolExecutor(threads) as pool:
            decoded = pool.map(self._decoded, firsts) if threads > 1 else map(self._decoded, firsts)
            key: str | None = None
            original: np.ndarray | Exception = self._blank(0)
            for place, row in enumerate(listed):
                if row["key"] != key:
                    key, original = row["key"], next(decoded)
                yield place, original if isinstance(original, Exception) else self._copy(original, row)

    def _decoded(self, row: dict) -> np.ndarray | Exception:
        try:
            return decode_image(fetch_image(row), self._config)
        except (UnusableImage, FileNotFoundError, StorageError) as error:
            return error

    def _copy(self, original: np.ndarray, row: dict) -> np.ndarray:
        return augment(original, self._config.augment, seed=self._seed, key=row["key"], copy=row["copy"])

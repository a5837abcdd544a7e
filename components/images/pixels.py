"""From rows of a snapshot to pixels: the one way in which every step reads images."""

import functools

import numpy as np
import pyarrow as pa

from components import storage
from components.images.augment import augment
from components.images.config import ImagesConfig
from components.images.decode import decode
from components.images.sources import member_etag, read_packed

_packed = functools.lru_cache(maxsize=2)(read_packed)
"""A packed file is read once a process, however many readers there are."""


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
        side, channels = self._config.image_size, self._config.channels
        pixels = np.empty((rows.num_rows, side, side, channels), np.uint8)
        last, original = None, pixels[:0]
        for place, row in enumerate(rows.to_pylist()):
            if row["key"] != last:  # copies of an image follow one another: it is decoded once for all of them
                last, original = row["key"], decode(fetch(row), self._config)
            pixels[place] = augment(original, self._config.augment, seed=self._seed, key=row["key"], copy=row["copy"])
        return pixels


def fetch(row: dict) -> bytes:
    """Encoded image of one row (uri, member, size, etag).

    Raises FileNotFoundError when the store says that it is not there, StorageError when the store cannot say or when
    the content is no longer what was listed.
    """
    if row["member"] is None:
        data = storage.read_bytes(row["uri"])
        same = len(data) == row["size"]
    else:
        data = _packed(row["uri"])[row["member"]]
        same = member_etag(data) == row["etag"]
    if not same:
        name = row["uri"] if row["member"] is None else f"{row['member']} in {row['uri']}"
        raise storage.StorageError(f"{name} changed since the snapshot listed it: run again to take a new snapshot")
    return data

"""Source `digits`: scikit-learn's bundled handwritten digits, 8x8 pixels with values 0..16.

They are enlarged to `image_size` and packed, as PNGs, into one Parquet file in the snapshot's folder.
"""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from PIL import Image

from components.images.config import ImagesConfig
from components.images.listing import LISTING_SCHEMA, Listing, content_of, listing_of
from components.images.sources.parquet_tables import parquet_member
from components.store import commits, objects, parquet

DIGITS_FILE = "images.parquet"
DIGITS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), nullable=False),
        pa.field("label", pa.int64()),
    ]
)
"""The Hugging Face layout of an image dataset."""
DIGITS_WHITE = 16
"""Largest value of a pixel in scikit-learn's arrays."""


def list_digits(config: ImagesConfig, snapshot_folder: str, without: Sequence[str] = ()) -> Listing:
    """All digits; writes them to DIGITS_FILE in `snapshot_folder`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    encoded = [_enlarged_png(pixels, config.image_size) for pixels in digits.images]  # from (8, 8) each
    keys = [f"digit-{number:04}" for number in range(len(encoded))]
    labels = [int(label) for label in digits.target]
    images = [{"bytes": data, "path": f"{key}.png"} for key, data in zip(keys, encoded, strict=True)]
    packed = parquet.to_bytes(pa.table([keys, images, labels], schema=DIGITS_SCHEMA))
    uri = objects.join(snapshot_folder, DIGITS_FILE)
    objects.write_bytes(uri, packed)
    columns = [
        keys,
        labels,
        [uri] * len(keys),
        [parquet_member(0, number, "image") for number in range(len(keys))],
        [len(data) for data in encoded],
        [content_of(packed).hex()] * len(keys),
        [content_of(data) for data in encoded],
    ]
    names = tuple(str(name) for name in digits.target_names)
    return listing_of(pa.table(columns, schema=LISTING_SCHEMA), names, (commits.file_entry(DIGITS_FILE, packed),))


def _enlarged_png(pixels: np.ndarray, side: int) -> bytes:
    """8x8 values as a grayscale PNG of side `side`; enlarged in floats, so that values are rounded once."""
    enlarged = Image.fromarray(pixels.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    values = np.rint(np.clip(np.asarray(enlarged) * (255 / DIGITS_WHITE), 0, 255)).astype(np.uint8)  # (side, side)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()

"""Where images come from: each source lists its images once, as rows that can be read one by one."""

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from PIL import Image

from components.images.archives import list_parquet, list_webdataset
from components.images.config import ImagesConfig
from components.images.fetch import content_etag
from components.images.files import list_files, list_folder
from components.images.listing import LISTING_SCHEMA, Listing
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


def list_images(config: ImagesConfig, folder_uri: str) -> Listing:
    """All images of the configured source; raises ValueError when there are none.

    A source that has no files of its own (digits) writes them, packed, into the snapshot's folder `folder_uri`.
    """
    if config.source == "digits":
        return _digits(config, objects.absolute(folder_uri))
    sources: dict[str, Callable[[ImagesConfig], Listing]] = {
        "folder": list_folder,
        "files": list_files,
        "webdataset": list_webdataset,
        "parquet": list_parquet,
    }
    return sources[config.source](config)


def _digits(config: ImagesConfig, folder: str) -> Listing:
    """scikit-learn's bundled handwritten digits (8x8, values 0..16), enlarged and packed into one Parquet file."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    encoded = [_png(pixels, config.image_size) for pixels in digits.images]
    keys = [f"digit-{number:04}" for number in range(len(encoded))]
    labels = [int(label) for label in digits.target]
    images = [{"bytes": data, "path": f"{key}.png"} for key, data in zip(keys, encoded, strict=True)]
    packed = parquet.to_bytes(pa.table([keys, images, labels], schema=DIGITS_SCHEMA))
    uri = objects.join(folder, DIGITS_FILE)
    objects.write_bytes(uri, packed)
    columns = [
        keys,
        labels,
        [uri] * len(keys),
        [f"0:{number}:image" for number in range(len(keys))],
        [len(data) for data in encoded],
        [content_etag(data) for data in encoded],
    ]
    names = tuple(str(name) for name in digits.target_names)
    return Listing(pa.table(columns, schema=LISTING_SCHEMA), names, (commits.file_entry(DIGITS_FILE, packed),))


def _png(pixels: np.ndarray, side: int) -> bytes:
    """8x8 values in 0..16 as a grayscale PNG; enlarged in floats, so that it is rounded once."""
    enlarged = Image.fromarray(pixels.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    values = np.rint(np.clip(np.asarray(enlarged) * (255 / 16), 0, 255)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()

"""Where images come from: each source lists its images once, as rows that can be read one by one."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image

from components import parquet, storage
from components.artifacts import digest_of
from components.config import require
from components.images.config import ImagesConfig
from components.images.manifest import SCHEMA

PACKED = "images.parquet"
PACKED_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]), nullable=False),
        pa.field("label", pa.int64()),
    ]
)
"""The Hugging Face layout of an image dataset, and the key that a snapshot's `member` names."""

EXTENSIONS = ("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp")

LISTED = pa.schema([SCHEMA.field(name) for name in ("key", "label", "uri", "member", "size", "etag")])


@dataclass(frozen=True)
class Listing:
    """What a source holds, before any image was opened."""

    table: pa.Table
    """Rows of LISTED by rising key; keys are unique, URIs can be read as they stand."""
    classes: tuple[str, ...]
    """Name of each label."""
    files: tuple[storage.FileEntry, ...] = ()
    """Files that the source wrote into the snapshot's folder."""
    ignored: int = 0
    """Files passed over: hidden, or with an extension that is no image's."""

    def digest(self) -> str:
        """Changes when an image is added, removed, renamed or rewritten: what a new snapshot is due by."""
        columns = [self.table[name].to_pylist() for name in ("key", "label", "size", "etag")]
        return digest_of([list(self.classes), columns])


def list_images(config: ImagesConfig, folder_uri: str) -> Listing:
    """All images of the configured source; raises ValueError when there is nothing to learn from.

    A source that has no files of its own (digits) writes them, packed, into the snapshot's folder `folder_uri`.
    """
    sources: dict[str, Callable[[ImagesConfig, str], Listing]] = {"digits": _digits, "folder": _folder}
    return sources[config.source](config, storage.absolute(folder_uri))


# --- digits -----------------------------------------------------------------------------------------------------------


def _digits(config: ImagesConfig, folder: str) -> Listing:
    """scikit-learn's bundled handwritten digits (8x8, values 0..16), enlarged and packed into one Parquet file."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    encoded = [_png(pixels, config.image_size) for pixels in digits.images]
    keys = [f"digit-{number:04}" for number in range(len(encoded))]
    labels = [int(label) for label in digits.target]
    images = [{"bytes": data, "path": f"{key}.png"} for key, data in zip(keys, encoded, strict=True)]
    packed = parquet.to_bytes(pa.table([keys, images, labels], schema=PACKED_SCHEMA))
    uri = storage.join(folder, PACKED)
    storage.write_bytes(uri, packed)
    columns = [
        keys,
        labels,
        [uri] * len(keys),
        keys,
        [len(data) for data in encoded],
        [member_etag(data) for data in encoded],
    ]
    names = tuple(str(name) for name in digits.target_names)
    return Listing(pa.table(columns, schema=LISTED), names, (storage.entry(PACKED, packed),))


def _png(pixels: np.ndarray, side: int) -> bytes:
    """8x8 values in 0..16 as a grayscale PNG; enlarged in floats, so that it is rounded once."""
    enlarged = Image.fromarray(pixels.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    values = np.rint(np.clip(np.asarray(enlarged) * (255 / 16), 0, 255)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()


def member_etag(data: bytes) -> str:
    """Etag of an image inside a packed file."""
    return hashlib.sha256(data).hexdigest()[:32]


def read_packed(uri: str) -> dict[str, bytes]:
    """Encoded images of a packed file by key."""
    table = parquet.from_bytes(storage.read_bytes(uri), columns=["key", "image"])
    images = pa.chunked_array(table["image"]).combine_chunks().field("bytes")
    return dict(zip(table["key"].to_pylist(), images.to_pylist(), strict=True))


# --- folder -----------------------------------------------------------------------------------------------------------


def _folder(config: ImagesConfig, _: str) -> Listing:
    """A tree with one folder a class; labels count the sorted names of the class folders."""
    root = storage.absolute(str(config.uri))
    files = storage.listing(root)
    require(
        bool(files),
        f"images.uri must name a folder with one folder a class, found no file under {root}: "
        "is the path right, and is anything in it?",
    )
    visible = [file for file in files if not any(part.startswith((".", "__MACOSX")) for part in file.path.split("/"))]
    images = [file for file in visible if file.path.lower().endswith(tuple(f".{name}" for name in EXTENSIONS))]
    require(
        bool(images),
        f"images.uri must hold images ({', '.join(EXTENSIONS)}), found {len(files)} files under "
        f"{root} and none of these, for example {files[0].path!r}: is the path right?",
    )
    loose = [file.path for file in images if "/" not in file.path]
    require(
        not loose,
        f"every image must lie in the folder of its class, found {len(loose)} directly in {root}, for "
        f"example {loose[:1]}: make one folder a class there and move the images into them",
    )
    garbled = [file.path for file in images if any("\ud800" <= letter <= "\udfff" for letter in file.path)]
    require(
        not garbled, f"names of images must be UTF-8, got {len(garbled)} others, for example {garbled[:1]}: rename them"
    )
    classes = tuple(sorted({file.path.split("/")[0] for file in images}))
    label = {name: number for number, name in enumerate(classes)}
    columns = [
        [file.path for file in images],
        [label[file.path.split("/")[0]] for file in images],
        [file.uri for file in images],
        [None] * len(images),
        [file.size for file in images],
        [file.etag for file in images],
    ]
    return Listing(pa.table(columns, schema=LISTED), classes, ignored=len(files) - len(images))

"""Sources whose images are files of their own: a folder a class, or any tree with a table of labels or without."""

from collections.abc import Sequence

import pyarrow as pa

from components.config import require
from components.images.config import ImagesConfig
from components.images.labels import number_labels, read_labels
from components.images.listing import IMAGE_EXTENSIONS, LISTING_SCHEMA, Listing, files_with_extension, visible_files
from components.store import objects


def list_folder(config: ImagesConfig) -> Listing:
    """A tree with one folder a class; labels count the sorted names of the class folders."""
    root = objects.absolute(str(config.uri))
    shown, total = visible_files(root, "a folder with one folder a class")
    images = files_with_extension(shown, IMAGE_EXTENSIONS, root)
    loose = [file.path for file in images if "/" not in file.path]
    require(
        not loose,
        f"every image must lie in the folder of its class, found {len(loose)} directly in {root}, for "
        f"example {loose[:1]}: make one folder a class there and move the images into them, or set "
        "images.source=files",
    )
    labels, classes = number_labels([file.path.split("/")[0] for file in images])
    return Listing(_rows(images, labels), classes, ignored=total - len(images))


def list_files(config: ImagesConfig) -> Listing:
    """Any tree of images; a label comes from the table `config.labels`, null for images that it does not name."""
    root = objects.absolute(str(config.uri))
    shown, total = visible_files(root, "a folder with images")
    images = files_with_extension(shown, IMAGE_EXTENSIONS, root)
    known = read_labels(config) if config.labels else {}
    labels, classes = number_labels([known.get(file.path) for file in images])
    require(
        not known or any(label is not None for label in labels),
        f"images.labels must name images by their path below {root}, as in {images[0].path!r}; none of its "
        f"{len(known)} keys does, for example {next(iter(known), None)!r}",
    )
    return Listing(_rows(images, labels), classes, ignored=total - len(images))


def _rows(images: Sequence[objects.StoredObject], labels: Sequence[int | None]) -> pa.Table:
    columns = [
        [file.path for file in images],
        labels,
        [file.uri for file in images],
        [None] * len(images),
        [file.size for file in images],
        [file.etag for file in images],
    ]
    return pa.table(columns, schema=LISTING_SCHEMA)

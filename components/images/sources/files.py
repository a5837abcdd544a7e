"""Source `files`: any tree of image files, with or without a table of labels."""

import pyarrow as pa
import pyarrow.csv

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.file_tree import IMAGE_EXTENSIONS, image_file_rows, read_file_tree
from components.images.sources.labels import Label, label_values, number_labels
from components.store import objects, parquet

PARQUET_MAGIC = b"PAR1"
"""First bytes of every Parquet file."""


def list_files(config: ImagesConfig, snapshot_folder: str) -> Listing:
    """All images of the tree; labels come from the table `config.labels`, null for images that it lacks."""
    tree = read_file_tree(config, IMAGE_EXTENSIONS, "a folder with images")
    label_by_key = _read_label_table(config) if config.labels else {}
    labels, classes = number_labels([label_by_key.get(file.path) for file in tree.files])
    require(
        not label_by_key or any(file.path in label_by_key for file in tree.files),
        f"images.labels must name images by their path below {tree.root}, as in {tree.files[0].path!r}; none of its "
        f"{len(label_by_key)} keys does, for example {next(iter(label_by_key), None)!r}",
    )
    require(
        not config.labels or bool(classes),
        f"images.labels must give the images labels, column '{config.label_column}' of {config.labels} has none for "
        f"any of the {len(tree.files)} images: fill it, or leave images.labels out for a model without classes",
    )
    return Listing(image_file_rows(tree.files, labels), classes, ignored=tree.ignored)


def _read_label_table(config: ImagesConfig) -> dict[str, Label]:
    """Label by key from the CSV or Parquet table that `config.labels` names."""
    uri = objects.absolute(str(config.labels))
    table = _read_table(uri, config.key_column)
    missing = [name for name in (config.key_column, config.label_column) if name not in table.column_names]
    require(
        not missing,
        f"{uri} must have the columns '{config.key_column}' and '{config.label_column}', found "
        f"{table.column_names}: set images.key_column and images.label_column",
    )
    keys = table[config.key_column].to_pylist()
    repeated = len(keys) - len(set(keys))
    require(repeated == 0, f"{uri} must name each key once, got {repeated} repetitions")
    return dict(zip(keys, label_values(table[config.label_column], uri), strict=True))


def _read_table(uri: str, key_column: str) -> pa.Table:
    try:
        data = objects.read_bytes(uri)
    except FileNotFoundError:
        raise ValueError(f"images.labels must name a CSV or Parquet file, found nothing at {uri}") from None
    try:
        if data.startswith(PARQUET_MAGIC):
            return parquet.from_bytes(data)
        # Read as an integer, the name 007 would become 7.
        keys_as_text = pa.csv.ConvertOptions(column_types={key_column: pa.string()})
        return pa.csv.read_csv(pa.BufferReader(data), convert_options=keys_as_text)
    except pa.ArrowException as error:
        raise ValueError(f"images.labels must name a CSV or Parquet file, {uri} cannot be read: {error}") from None

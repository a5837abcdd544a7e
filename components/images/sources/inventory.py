"""Source `inventory`: tables of what a bucket holds, as object stores write them every night. Nothing is listed.

`images.uri` is one table, a folder of tables, or the manifest.json of an Amazon S3 inventory, which names its tables.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import UNNUMBERED_SCHEMA, Listing, ListingBuilder, Numbering
from components.images.sources.file_tree import HIDDEN, IMAGE_EXTENSIONS, FileTree, has_extension
from components.images.sources.labels import MAX_CLASSES, Label, label_values, number_labels
from components.images.sources.table_files import TableFile
from components.store import objects

TABLE_EXTENSIONS = ("csv", "csv.gz", "parquet")
MANIFEST = "manifest.json"
"""File that names the tables of an Amazon S3 inventory, and the columns of those that are CSV."""
KEY, URI, BUCKET, SIZE, ETAG = "key", "uri", "bucket", "size", "etag"
CURRENT = {"islatest": "true", "isdeletemarker": "false"}
"""Columns of a bucket with versions, and their value for an object that is there."""


class InventoryFile(NamedTuple):
    """One table of an inventory."""

    uri: str
    columns: tuple[str, ...] | None = None
    """Names of its columns, where the table itself has none."""


def list_inventory(config: ImagesConfig, snapshot_folder: str, without: Sequence[str]) -> Listing:
    """All images that the tables name. A row's location is its column `uri`, or s3://<bucket>/<key>.

    Raises ValueError for a table without the columns key, size, etag, and uri or bucket.
    """
    builder, ignored, labels = ListingBuilder(), 0, _Labels(config.label_column)
    for file in _inventory_files(config, without):
        for rows in _rows(file, labels):
            visible = pc.invert(pc.match_substring_regex(rows["key"], HIDDEN))
            images = rows.filter(pc.and_(visible, has_extension(rows["key"], IMAGE_EXTENSIONS)))
            ignored += rows.num_rows - images.num_rows
            builder.add(images)
    extensions = ", ".join(IMAGE_EXTENSIONS)
    require(
        builder.rows > 0,
        f"images.uri must name an inventory with images ({extensions}), found {ignored} other files in {config.uri}",
    )
    return builder.finish(labels.number, ignored=ignored)


class _Labels:
    """The labels of the inventory so far."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._label_of: dict[str, Label] = {}

    def texts(self, column: pa.ChunkedArray, uri: str) -> pa.Array:
        """Labels of some rows as text."""
        values = label_values(column, uri)
        self._label_of |= {str(value): value for value in set(values) if value is not None}
        require(len(self._label_of) <= MAX_CLASSES, f"{uri} must have at most {MAX_CLASSES} different labels, got more")
        return pa.array([None if value is None else str(value) for value in values], pa.string())

    def number(self, texts: Collection[str]) -> Numbering:
        """Numbers of the labels that occur."""
        ordered = sorted(texts)
        numbers, classes = number_labels([self._label_of[text] for text in ordered])
        return Numbering(dict(zip(ordered, numbers, strict=True)), classes)


def _inventory_files(config: ImagesConfig, without: Sequence[str]) -> list[InventoryFile]:
    uri = objects.absolute(str(config.uri))
    if uri.endswith(MANIFEST):
        return _files_of_manifest(uri)
    if uri.lower().endswith(tuple(f".{name}" for name in TABLE_EXTENSIONS)):
        return [InventoryFile(uri)]
    tree = FileTree(config, TABLE_EXTENSIONS, "a table of an inventory, or a folder with such tables", without)
    return [InventoryFile(file.uri) for file in tree.sorted_files()]


def _files_of_manifest(uri: str) -> list[InventoryFile]:
    """The tables of an Amazon S3 inventory. They lie in the bucket that the manifest lies in."""
    try:
        manifest = json.loads(objects.read_bytes(uri))
        is_csv, keys = manifest["fileFormat"] == "CSV", [file["key"] for file in manifest["files"]]
        columns = tuple(name.strip() for name in manifest["fileSchema"].split(",")) if is_csv else None
    except FileNotFoundError:
        raise ValueError(f"images.uri must name an inventory, found nothing at {uri}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{uri} must be the manifest of an Amazon S3 inventory, cannot read it: {error!r}") from None
    scheme, _, rest = uri.rpartition("://")
    root = f"{scheme}://{rest.partition('/')[0]}" if scheme else uri.rpartition("/")[0]
    return [InventoryFile(objects.join(root, key), columns) for key in keys]


def _rows(file: InventoryFile, labels: _Labels) -> Iterator[pa.Table]:
    """Rows of UNNUMBERED_SCHEMA for the objects that one table says are there."""
    table = TableFile(file.uri, "images.uri", file.columns)
    names = {_plain(name): name for name in table.columns}
    located = URI in names or BUCKET in names
    missing = [name for name in (KEY, SIZE, ETAG, *([] if located else [f"{URI} or {BUCKET}"])) if name not in names]
    require(not missing, f"an inventory must have the column {missing[:1]}, found {table.columns} in {file.uri}")
    wanted = [name for name in (KEY, URI, BUCKET, SIZE, ETAG, *CURRENT) if name in names]
    columns = list(dict.fromkeys([*(names[name] for name in wanted), *({labels.column} & set(table.columns))]))
    # In Amazon's CSV files keys are written as in URLs.
    quoted = file.columns is not None
    for rows in table.tables(columns, text=[names[name] for name in wanted if name != SIZE]):
        given = {name: rows[names[name]] for name in wanted}
        keys = pa.array(map(unquote_plus, given[KEY].to_pylist()), pa.string()) if quoted else given[KEY]
        uris = given.get(URI, pc.binary_join_element_wise("s3:/", given.get(BUCKET, keys), keys, "/"))
        count, is_labelled = rows.num_rows, labels.column in columns
        text = labels.texts(rows[labels.column], file.uri) if is_labelled else pa.nulls(count, pa.string())
        nothing = pa.nulls(count, pa.string())
        etags = pc.replace_substring(given[ETAG], '"', "")
        listed = pa.table(
            [keys, text, uris, nothing, given[SIZE].cast(pa.int64()), etags, pa.nulls(count)],
            names=UNNUMBERED_SCHEMA.names,
        )
        yield listed.filter(_is_current(given, keys)).cast(UNNUMBERED_SCHEMA)


def _is_current(given: dict[str, pa.ChunkedArray], keys: pa.Array) -> pa.Array:
    """Objects and not folders, in a bucket with versions the newest one, unless it says that the object was deleted."""
    current = pc.invert(pc.ends_with(keys, "/"))
    for name, value in CURRENT.items():
        if name in given:
            current = pc.and_(current, pc.equal(pc.utf8_lower(given[name].cast(pa.string())), value))
    return current


def _plain(name: str) -> str:
    """A column's name without case and underscores: ETag, e_tag and etag are one."""
    return name.lower().replace("_", "")

"""Inventories: the same images as a listing gives, in every form in which stores write them."""

import csv
import gzip
import io
import json
import os
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.images.sources.registry import list_images
from components.store import objects


@pytest.fixture
def rows(tree):
    """What a listing says of the images of `tree`, and a file that is no image."""
    listed = [(path.relative_to(tree).as_posix(), str(path), os.stat(path)) for path in sorted(tree.rglob("*.png"))]
    images = [
        {"key": key, "uri": uri, "size": stat.st_size, "etag": str(stat.st_mtime_ns)} for key, uri, stat in listed
    ]
    return [*images, {"key": "readme.txt", "uri": "/x", "size": 1, "etag": "e"}]


def as_csv(rows, header=True) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, quoting=csv.QUOTE_ALL)
    writer.writerows([*([rows[0].keys()] if header else []), *(row.values() for row in rows)])
    return sink.getvalue().encode()


def write(folder, name, rows):
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(as_csv(rows)) if name.endswith(".gz") else as_csv(rows))


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_an_inventory_gives_what_a_listing_gives(tree, tmp_path, settings, rows, kind):
    (tmp_path / "inventory").mkdir()
    for number in range(3):
        write(tmp_path / "inventory", f"{number}.{kind}", rows[number::3])
    inventory = list_images(settings(source="inventory", uri=str(tmp_path / "inventory")), "unused")
    listed = list_images(settings(source="files", uri=str(tree)), "unused")
    assert inventory.table.equals(listed.table) and inventory.digest() == listed.digest() and inventory.ignored == 1


def test_labels_of_an_inventory_are_classes(tmp_path, settings, rows):
    write(tmp_path, "a.csv", [{**row, "kind": row["key"].split("/")[0]} for row in rows])
    config = settings(source="inventory", uri=str(tmp_path / "a.csv"), label_column="kind")
    listing = list_images(config, "unused")
    assert listing.classes == ("cat", "dog") and listing.table["label"].to_pylist() == [0] * 30 + [1] * 30


def test_an_amazon_inventory_is_read_by_its_manifest(settings):
    root = f"memory://{uuid.uuid4().hex}"
    kept, old, gone = ("a+b/%C3%BC%261.png", "true", "false"), ("old.png", "false", "false"), ("x.png", "true", "true")
    rows = [
        {
            "bucket": "bucket",
            "key": key,
            "version": "1",
            "latest": latest,
            "deleted": deleted,
            "size": "7",
            "etag": "0f",
        }
        for key, latest, deleted in [kept, old, gone, ("folder.png/", "true", "false")]
    ]
    schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, ETag"
    manifest = {"fileFormat": "CSV", "fileSchema": schema, "files": [{"key": "inventory/data/1.csv.gz"}]}
    objects.write_bytes(f"{root}/inventory/data/1.csv.gz", gzip.compress(as_csv(rows, header=False)))
    objects.write_bytes(f"{root}/inventory/2026/manifest.json", json.dumps(manifest).encode())
    listing = list_images(settings(source="inventory", uri=f"{root}/inventory/2026/manifest.json"), "unused")
    (row,) = listing.table.to_pylist()
    assert (row["key"], row["uri"]) == ("a b/ü&1.png", "s3://bucket/a b/ü&1.png")
    assert (row["size"], row["etag"]) == (7, "0f")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"key": "1.png", "size": 1, "etag": "e"}],
            r"must have the column \['uri or bucket'\], found .*'key', 'size'",
        ),
        ([{"key": "1.png", "uri": "/1.png", "size": 1}], r"must have the column \['etag'\]"),
        ([{"key": "1.txt", "uri": "/1", "size": 1, "etag": "e"}], "found 1 other files"),
        ([{"key": "1.png", "uri": "/1", "size": 1, "etag": "e"}] * 2, r"must be listed once, got \['1.png'\] twice"),
    ],
)
def test_a_table_that_is_no_inventory_is_refused(tmp_path, settings, rows, message):
    write(tmp_path, "a.csv", rows)
    with pytest.raises(ValueError, match=message):
        list_images(settings(source="inventory", uri=str(tmp_path / "a.csv")), "unused")

"""Images of row groups compared with the table, with what was read for them, and with damaged pages."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import StorageError
from components.images.decode import UnusableImage
from components.images.pixels import PixelReader
from components.images.sources import row_groups
from components.images.sources.registry import list_images
from components.images.sources.row_groups import RowGroup
from components.store import objects

IMAGES = [np.random.default_rng(number).bytes(2000 + number) for number in range(300)]


@pytest.fixture
def table(tmp_path) -> str:
    """Three row groups of 100 images in pages of some rows each, with checksums."""
    uri = str(tmp_path / "t.parquet")
    column = pa.array([{"bytes": data, "path": str(number)} for number, data in enumerate(IMAGES)])
    pq.write_table(
        pa.table({"image": column}),
        uri,
        row_group_size=100,
        data_page_size=20_000,
        write_batch_size=8,
        use_dictionary=False,
        write_page_checksum=True,
    )
    return uri


def test_rows_in_any_order_are_the_images(table):
    group = RowGroup(table, 1, "image")
    assert all(group.image(row) == IMAGES[100 + row] for row in (70, 3, 99, 0, 64, 63))


def test_a_random_batch_reads_each_row_group_once(table, settings, requests, monkeypatch):
    monkeypatch.setattr(row_groups, "CACHED_BYTES", 1)  # nothing is left from the batch before
    rows = list_images(settings(source="parquet", uri=table.rsplit("/", 1)[0]), "unused").table
    row_groups.forget_row_groups()
    requests.clear()
    order = np.random.default_rng(0).permutation(300)[:64]
    batch = rows.take(pa.array(order)).append_column("copy", pa.array([0] * 64, pa.int16()))
    _, refused = PixelReader(settings(), 0).read_usable(batch)
    assert len(refused) == 64  # random bytes are no images
    reads = [part for part in requests if part.size > 100_000]
    assert len(reads) == 3 and len(requests) == 4  # and the footer


def test_a_group_above_the_cache_is_read_on_and_not_kept(table, monkeypatch, requests):
    monkeypatch.setattr(row_groups, "CACHED_BYTES", 150_000)  # about 70 images
    group = RowGroup(table, 0, "image")
    for row in range(100):
        assert group.image(row) == IMAGES[row] and group.cached_bytes <= 300_000
    assert sum(part.size for part in requests) < 1.5 * sum(map(len, IMAGES[:100]))  # the second half did not start anew
    assert group.image(1) == IMAGES[1]


def test_the_cache_is_bounded_by_bytes(table, monkeypatch):
    row_groups.forget_row_groups()
    monkeypatch.setattr(row_groups, "CACHED_BYTES", 300_000)
    for row in range(300):
        assert row_groups.row_group(table, "1", row // 100, "image").image(row % 100) == IMAGES[row]
    assert sum(group.cached_bytes for group in row_groups._cache.values()) <= 600_000


def test_rows_behind_a_damaged_page_are_refused(table):
    data = bytearray(Path(table).read_bytes())
    data[data.index(IMAGES[180]) + 100] ^= 1
    Path(table).write_bytes(data)
    images = [RowGroup(table, group, "image") for group in range(3)]
    read = [images[row // 100].image(row % 100) for row in range(300)]
    lost = [row for row, image in enumerate(read) if isinstance(image, UnusableImage)]
    assert lost == list(range(164, 200)) and [read[row] for row in range(164)] == IMAGES[:164]
    assert read[199].reason == "damaged_archive" and "row group 1 of the table cannot be decoded" in read[199].detail


def test_a_failing_store_is_no_damage(table, monkeypatch):
    group = RowGroup(table, 0, "image")

    def fail(*arguments):
        raise StorageError("the store is away")

    with monkeypatch.context() as patched, pytest.raises(StorageError, match="the store is away"):
        patched.setattr(objects, "read_range", fail)
        group.image(0)
    assert group.image(0) == IMAGES[0]

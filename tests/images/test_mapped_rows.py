"""Rows by number compared with the snapshot in memory; and what a process that draws them holds."""

import hashlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from components.images import mapped_rows
from components.images.config import PixelConfig
from components.images.mapped_rows import ROWS_SCHEMA, MappedRows, map_rows
from components.images.snapshot import CONTENT, SNAPSHOT_SCHEMA, open_snapshot, read_snapshot
from components.images.snapshot_writer import save_snapshot
from components.store import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))


def snapshot_rows(images: int) -> pa.Table:
    """Rows of a snapshot with long URIs: one in ten is held out, every third has no label."""
    numbers = np.arange(images)
    columns = {
        "id": pa.array([int.from_bytes(hashlib.sha256(b"%d" % number).digest()[:7]) for number in numbers]),
        "key": pa.array([f"{number:09}.jpg" for number in numbers]),
        "label": pa.array([None if number % 3 == 0 else number % 7 for number in numbers], pa.int32()),
        "split": pa.array(np.where(numbers % 10 == 0, "held_out", "train")),
        "copy": pa.array(np.zeros(images, np.int16)),
        "content": pa.array([None] * images, CONTENT),
        "uri": pa.array([f"s3://a-bucket/with/a/long/prefix/for/images/{number:09}.jpg" for number in numbers]),
        "member": pa.array([None] * images, pa.string()),
        "size": pa.array(numbers),
        "etag": pa.array([f"{number:032x}" for number in numbers]),
    }
    return pa.table([columns[name] for name in SNAPSHOT_SCHEMA.names], schema=SNAPSHOT_SCHEMA)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(mapped_rows, "ROWS_PER_BATCH", 64)
    save_snapshot(str(tmp_path / "s"), snapshot_rows(1000), tuple("0123456"), PixelConfig(image_size=8), 0)
    return str(tmp_path / "s")


def test_rows_are_those_of_the_snapshot(folder):
    whole, stored = read_snapshot(folder), open_snapshot(folder)
    for split in ("train", "held_out", "test"):
        expected, rows = whole.split(split).select(ROWS_SCHEMA.names), map_rows(stored, split)
        assert len(rows) == expected.num_rows
        numbers = np.random.default_rng(0).integers(0, max(1, len(rows)), 50 if len(rows) else 0)
        assert rows.take(numbers).equals(expected.take(pa.array(numbers)))
        for name in ("sample", "gallery"):
            wanted = getattr(whole, name)(split, 17).select(ROWS_SCHEMA.names)
            assert getattr(rows, name)(17).equals(wanted)


def test_rows_are_unpacked_once_and_can_be_sent(folder, monkeypatch):
    rows = map_rows(open_snapshot(folder), "train")
    first = rows.take(np.array([5]))
    monkeypatch.setattr(mapped_rows, "open_snapshot", None)  # would fail
    mapped_rows._open_file.cache_clear()
    assert MappedRows(**vars(rows)).take(np.array([5])).equals(first)  # strings are all it holds


def test_a_moved_snapshot_is_unpacked_anew(folder, tmp_path):
    (tmp_path / "s").rename(tmp_path / "moved")
    moved = map_rows(open_snapshot(str(tmp_path / "moved")), "train")
    assert moved.folder.endswith("moved") and moved.name.startswith("rows-1-")


PRIVATE_MEMORY = """
import sys, numpy as np
from components.images.mapped_rows import map_rows
from components.images.snapshot import open_snapshot
private = lambda: int(open("/proc/self/status").read().split("RssAnon:")[1].split()[0]) >> 10
rows = map_rows(open_snapshot(sys.argv[1]), "train")
rows.take(np.arange(10))
before = private()
for seed in range(20):
    assert rows.take(np.random.default_rng(seed).integers(0, len(rows), 64)).num_rows == 64
print(len(rows), private() - before)
"""


@pytest.mark.slow
def test_a_worker_that_draws_rows_does_not_hold_them(tmp_path):
    rows = snapshot_rows(300_000)  # 60 MB
    save_snapshot(str(tmp_path / "s"), rows, (), PixelConfig(image_size=8), 0)
    command = [sys.executable, "-c", PRIVATE_MEMORY, str(tmp_path / "s")]
    printed = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert [int(line.split()[0]) for line in printed] == [270_000] * 2
    assert int(printed[1].split()[1]) <= rows.nbytes >> 23  # MiB: below an eighth of them

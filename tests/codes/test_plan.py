"""The plan over many commits, compared with a dictionary of the rows that must exist."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.codes.dataset import CodeDataset
from components.codes.plan import SPLITS, EncodeRequest, RewriteRequest, ShardLedger, plan_waves
from components.codes.writer import Shard, build_shard, rewrite_rows, write_shard
from components.images.commit import row_ids
from components.images.config import PixelConfig
from components.images.snapshot import SNAPSHOT_SCHEMA, StoredSnapshot, open_snapshot
from components.images.snapshot_writer import save_snapshot
from components.images.split import split_of
from components.store import parquet

Images = dict[str, tuple[str, int | None]]
"""Etag and label by key."""


def commit_rows(images: Images, folder: Path, copies: int = 1) -> StoredSnapshot:
    keys = [key for key in sorted(images) for _ in range(copies)]
    copy = np.tile(np.arange(copies), len(images))
    columns = {
        "id": row_ids(keys, copy),
        "key": keys,
        "label": [images[key][1] for key in keys],
        "split": [split_of(key, 0.3) for key in keys],
        "copy": copy.astype(np.int16),
        "content": [None] * len(keys),
        "uri": [f"/elsewhere/{key}" for key in keys],
        "member": [None] * len(keys),
        "size": [1] * len(keys),
        "etag": [images[key][0] for key in keys],
    }
    table = pa.table([pa.array(columns[field.name], field.type) for field in SNAPSHOT_SCHEMA], schema=SNAPSHOT_SCHEMA)
    save_snapshot(str(folder), table, ("a", "b"), PixelConfig(image_size=16), 0)
    return open_snapshot(str(folder))


class Job:
    """Carries out plans in this process; codes are drawn from a row's key, copy and etag."""

    def __init__(self, codes, folder: Path) -> None:
        self.codes, self.folder = codes, folder
        self.dataset: CodeDataset | None = None
        self.encoded: list[str] = []

    def run(self, images: Images, rows_per_wave: int, rows_per_shard: int, copies: int = 1) -> CodeDataset:
        self.encoded = []
        snapshot = commit_rows(images, self.folder.parent / "snapshot", copies)
        ledger = ShardLedger(str(self.folder), self.codes.schema, self.dataset.shards if self.dataset else ())
        shards: list[Shard] = []
        for wave in plan_waves(
            snapshot, self.codes.schema, ledger, rows_per_wave=rows_per_wave, rows_per_shard=rows_per_shard
        ):
            made = [*map(self.encode, wave.encode), *map(self.rewrite, wave.rewrite)]
            shards += [*wave.keep, *made]
        self.dataset = replace(self.codes, snapshot=snapshot).commit(self.folder, shards, [], self.dataset)
        return self.dataset

    def encode(self, request: EncodeRequest) -> Shard:
        rows = request.rows.to_pylist()
        self.encoded += [row["key"] for row in rows]
        maps = [np.stack([random_codes(row, level) for row in rows]) for level in self.codes.schema.levels]
        table = build_shard(self.codes.schema, request.rows, request.versions, maps, np.zeros(len(rows)))
        return write_shard(str(self.folder), request.name, table)

    def rewrite(self, request: RewriteRequest) -> Shard:
        table = parquet.from_bytes((self.folder / request.shard.path).read_bytes())
        splits = [SPLITS[split] for split in request.splits]
        return write_shard(
            str(self.folder), request.name, rewrite_rows(table, request.row_numbers, request.labels, splits)
        )

    def rows(self) -> list[dict]:
        assert self.dataset is not None
        tables = [parquet.from_bytes((self.folder / shard.path).read_bytes()) for shard in self.dataset.shards]
        rows = [row for table in tables for row in table.to_pylist()]
        return sorted(rows, key=lambda row: (row["key"], row["copy"]))


def random_codes(row: dict, level) -> np.ndarray:
    seed = [ord(letter) for letter in f"{row['key']} {row['copy']} {row['etag']} {level.name}"]
    return np.random.default_rng(seed).integers(0, level.codebook_size, (level.height, level.width))


@pytest.fixture
def job(codes, tmp_path) -> Job:
    return Job(codes, tmp_path / "dataset")


def expected_rows(images: Images, levels, copies: int) -> list[tuple]:
    rows = [{"key": key, "copy": copy, "etag": images[key][0]} for key in sorted(images) for copy in range(copies)]
    return [
        (
            *(row["key"], row["copy"], images[row["key"]][1], split_of(row["key"], 0.3)),
            *(random_codes(row, level).ravel().tolist() for level in levels),
        )
        for row in rows
    ]


@pytest.mark.parametrize("seed", range(6))
def test_after_random_changes_each_row_exists_once_and_only_changes_were_encoded(job, seed):
    draw = random.Random(seed)
    copies = draw.choice([1, 1, 3])
    images: Images = {f"k{number:03}": ("e0", number % 2) for number in draw.sample(range(400), 60)}
    encoded_images: Images = {}
    for step in range(7):
        rows_per_shard = draw.choice([1, 4, 16])
        job.run(images, rows_per_shard * draw.choice([1, 3, 50]), rows_per_shard, copies)
        changed = [key for key in images for _ in range(copies) if encoded_images.get(key, ("",))[0] != images[key][0]]
        assert sorted(job.encoded) == sorted(changed)
        got = [(row["key"], row["copy"], row["label"], row["split"], row["top"], row["bottom"]) for row in job.rows()]
        assert got == expected_rows(images, job.codes.schema.levels, copies)
        encoded_images = dict(images)
        for key in draw.sample(sorted(images), 12):
            change = draw.choice(["delete", "rewrite", "relabel", "unlabel"])
            etag, label = images.pop(key)
            if change != "delete":
                images[key] = (
                    f"e{step + 1}" if change == "rewrite" else etag,
                    {"relabel": 1, "unlabel": None}.get(change, label),
                )
        images |= {f"k{number:03}": ("e0", 0) for number in draw.sample(range(400), draw.choice([0, 1, 30]))}


def test_an_unchanged_snapshot_gives_the_same_dataset(job):
    images: Images = {f"k{number:03}": ("e", None) for number in range(50)}
    first = job.run(images, 16, 8)
    assert job.run(images, 16, 8) == first and job.encoded == []
    assert job.run(images, 50, 5).digest == first.digest  # other sizes of shards and waves encode nothing again


@pytest.mark.slow
def test_memory_depends_on_the_rows_per_wave_and_not_on_all_rows(tmp_path):
    """Two planners of synthetic rows in separate processes, the second with five times as many rows."""
    peaks = [_peak_memory(tmp_path / str(rows), rows) for rows in (200_000, 1_000_000)]
    assert peaks[1] - peaks[0] < 50_000_000, peaks  # 800,000 rows of this snapshot take 200 MB as a table


def _peak_memory(folder: Path, rows: int) -> int:
    """Peak memory in bytes of a process that plans `rows` rows."""
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.planner", str(folder), str(rows), "--rows-per-wave", str(1 << 16)]
    output = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    return int(output.split()[-1])

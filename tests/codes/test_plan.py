"""The plan over many commits, compared with a dictionary of the rows that must exist."""

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.codes.dataset import CodeDataset
from components.codes.job_record import RejectedRow, ShardResult
from components.codes.plan import SPLITS, EncodeRequest, RewriteRequest, ShardLedger, Wave, plan_waves, planned_ahead
from components.codes.writer import Shard, build_shard, rewrite_rows, row_versions, write_shard
from components.errors import StorageError
from components.images.commit import row_hashes
from components.images.config import PixelConfig
from components.images.rejects import Reject
from components.images.snapshot import SNAPSHOT_SCHEMA, StoredSnapshot, open_snapshot
from components.images.snapshot_writer import save_snapshot
from components.images.split import split_of
from components.store import objects, parquet

ATTEMPT = "000001-test"
UNUSABLE = "unusable"
"""Etag of the images that cannot be decoded."""
Images = dict[str, tuple[str, int | None]]
"""Etag and label by key."""


def commit_rows(images: Images, folder: Path, copies: int = 1) -> StoredSnapshot:
    keys = [key for key in sorted(images) for _ in range(copies)]
    copy = np.tile(np.arange(copies), len(images))
    columns = {
        "id": row_hashes(keys, copy),
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
    """Carries out plans in this process; codes are drawn from a row's key, copy and etag. Images whose etag is UNUSABLE
    are rejected."""

    def __init__(self, codes, folder: Path) -> None:
        self.codes, self.folder = codes, folder
        self.dataset: CodeDataset | None = None
        self.recorded: list[ShardResult] = []
        self.decoded: list[tuple[str, int, str]] = []

    def run(
        self, images: Images, rows_per_wave: int, rows_per_shard: int, copies: int = 1, stop_after: int = 1000
    ) -> CodeDataset | None:
        """Commit the dataset, or stop after some shards, which stay on record; None then."""
        self.decoded = []
        snapshot = commit_rows(images, self.folder.parent / "snapshot", copies)
        committed = self.dataset.shards if self.dataset else ()
        ledger = ShardLedger(str(self.folder), self.codes.schema, committed, list(self.recorded))
        shards, rejects, made = [], [], []
        for wave in plan_waves(
            snapshot, self.codes.schema, ledger, rows_per_wave=rows_per_wave, rows_per_shard=rows_per_shard
        ):
            shards += wave.keep
            rejects += wave.rejects
            for request in wave.requests:
                if len(made) == stop_after:
                    return None
                made.append(self.encode(request) if isinstance(request, EncodeRequest) else self.rewrite(request))
                self.recorded.append(made[-1])
        shards += [result.shard for result in made if result.shard]
        rejects += [row.reject for result in made for row in result.rejected]
        self.dataset = replace(self.codes, snapshot=snapshot).commit(self.folder, shards, rejects, self.dataset)
        self.recorded = []
        return self.dataset

    def encode(self, request: EncodeRequest) -> ShardResult:
        rows = request.rows.to_pylist()
        self.decoded += [(row["key"], row["copy"], row["etag"]) for row in rows]
        usable = [number for number, row in enumerate(rows) if row["etag"] != UNUSABLE]
        rejected = tuple(
            RejectedRow(row["id"], int(version), Reject(row["key"], row["uri"], "empty", ""))
            for row, version in zip(rows, request.versions, strict=True)
            if row["etag"] == UNUSABLE
        )
        if not usable:
            return ShardResult(request.name, "", None, rejected)
        maps = [np.stack([random_codes(rows[n], level) for n in usable]) for level in self.codes.schema.levels]
        chosen = request.rows.take(pa.array(usable))
        table = build_shard(self.codes.schema, chosen, request.versions[usable], maps, np.zeros(len(usable)))
        return ShardResult(request.name, "", write_shard(str(self.folder), ATTEMPT, request.name, table), rejected)

    def rewrite(self, request: RewriteRequest) -> ShardResult:
        table = parquet.from_bytes((self.folder / request.shard.path).read_bytes())
        splits = [SPLITS[split] for split in request.splits]
        table = rewrite_rows(table, request.row_numbers, request.labels, splits)
        return ShardResult(request.name, "", write_shard(str(self.folder), ATTEMPT, request.name, table))

    def known(self) -> set[tuple[str, int]]:
        """Id and version of every row that is in a shard, or rejected on record."""
        shards = [result.shard for result in self.recorded if result.shard]
        tables = [self.table(shard) for shard in (*shards, *(self.dataset.shards if self.dataset else ()))]
        stored = {(row["id"], row["version"]) for table in tables for row in table.to_pylist()}
        return stored | {(row.id, row.version) for result in self.recorded for row in result.rejected}

    def table(self, shard: Shard) -> pa.Table:
        return parquet.from_bytes((self.folder / shard.path).read_bytes())

    def rows(self) -> list[dict]:
        assert self.dataset is not None
        rows = [row for shard in self.dataset.shards for row in self.table(shard).to_pylist()]
        return sorted(rows, key=lambda row: (row["key"], row["copy"]))


def random_codes(row: dict, level) -> np.ndarray:
    seed = [ord(letter) for letter in f"{row['key']} {row['copy']} {row['etag']} {level.name}"]
    return np.random.default_rng(seed).integers(0, level.codebook_size, (level.height, level.width))


@pytest.fixture
def job(codes, tmp_path) -> Job:
    return Job(codes, tmp_path / "dataset")


def expected_rows(images: Images, levels, copies: int) -> list[tuple]:
    usable = [key for key in sorted(images) if images[key][0] != UNUSABLE]
    rows = [{"key": key, "copy": copy, "etag": images[key][0]} for key in usable for copy in range(copies)]
    return [
        (
            *(row["key"], row["copy"], images[row["key"]][1], split_of(row["key"], 0.3)),
            *(random_codes(row, level).ravel().tolist() for level in levels),
        )
        for row in rows
    ]


def changed_images(images: Images, draw: random.Random, step: int) -> Images:
    images = dict(images)
    for key in draw.sample(sorted(images), 12):
        change = draw.choice(["delete", "rewrite", "spoil", "relabel", "unlabel"])
        etag, label = images.pop(key)
        if change != "delete":
            etag = {"rewrite": f"e{step + 1}", "spoil": UNUSABLE}.get(change, etag)
            images[key] = (etag, {"relabel": 1, "unlabel": None}.get(change, label))
    return images | {f"k{number:03}": ("e0", 0) for number in draw.sample(range(400), draw.choice([0, 1, 30]))}


@pytest.mark.parametrize("seed", range(8))
def test_after_random_changes_and_stops_each_row_exists_once_and_nothing_was_decoded_twice(job, seed):
    draw = random.Random(seed)
    copies = draw.choice([1, 1, 3])
    images: Images = {f"k{number:03}": ("e0", number % 2) for number in draw.sample(range(400), 60)}
    for step in range(9):
        rows_per_shard = draw.choice([1, 4, 16])
        sizes = (rows_per_shard * draw.choice([1, 3, 50]), rows_per_shard, copies)
        known = job.known()
        dataset = job.run(images, *sizes, stop_after=draw.choice([1, 3, 8, 1000]))
        rows = commit_rows(images, job.folder.parent / "listed", copies).waves(1000)
        listed = {row[:3]: row[3:] for table in rows for row in identities(table)}
        missing = {row for row, identity in listed.items() if identity not in known}
        assert set(job.decoded) <= missing and len(set(job.decoded)) == len(job.decoded)
        if dataset:
            assert set(job.decoded) == missing
            got = [
                (row["key"], row["copy"], row["label"], row["split"], row["top"], row["bottom"]) for row in job.rows()
            ]
            assert got == expected_rows(images, job.codes.schema.levels, copies)
        images = changed_images(images, draw, step)


def identities(rows: pa.Table) -> list[tuple[str, int, str, int, int]]:
    """Key, copy, etag, id and version."""
    columns = [rows[name].to_pylist() for name in ("key", "copy", "etag", "id")]
    return list(zip(*columns, row_versions(rows).tolist(), strict=True))


def test_a_shard_in_two_records_keeps_each_row_once(job):
    images: Images = {f"k{number:03}": ("e", None) for number in range(12)}
    job.run(images, 12, 4, stop_after=3)  # three shards, but the dataset is not committed
    first = list(job.recorded)
    job.recorded = []  # an attempt that could not see them, with other boundaries
    job.run(images, 12, 5, stop_after=2)
    job.recorded = [*first, *job.recorded]
    job.run(images, 12, 4)
    assert job.decoded == [] and len(job.rows()) == 12


def test_planning_reads_the_identities_alone_in_two_requests_per_shard(codes, tmp_path, monkeypatch):
    rows = 2000
    images: Images = {f"folder-{number // 1000:04}/image-{number:08}.jpg": ("e", number % 2) for number in range(rows)}
    job = Job(codes, tmp_path / "dataset")
    dataset = job.run(images, rows, rows // 2)
    assert dataset is not None
    reads: list[int] = []
    read_range = objects.read_range

    def counted(uri: str, start: int | None, stop: int | None) -> bytes:
        data = read_range(uri, start, stop)
        reads.extend([len(data)] if "/part-" in uri else [])
        return data

    monkeypatch.setattr(objects, "read_range", counted)
    job.run(images, rows, rows // 2)
    assert job.decoded == [] and len(reads) == 2 * len(dataset.shards)
    assert sum(reads) < 40 * rows  # of identities and keys, each of which takes 8 bytes at least


def test_an_unchanged_snapshot_gives_the_same_dataset(job):
    images: Images = {f"k{number:03}": ("e", None) for number in range(50)}
    first = job.run(images, 16, 8)
    assert first is not None and job.run(images, 16, 8) == first and job.decoded == []
    again = job.run(images, 50, 5)  # other sizes of shards and waves encode nothing again
    assert again is not None and again.digest == first.digest


def test_one_wave_is_planned_ahead_and_no_more():
    planned: list[int] = []

    def waves() -> Iterator[Wave]:
        for number in range(5):
            planned.append(number)
            yield Wave(number, 0, [], [], [], [])

    counts = [(wave.number, len(planned)) for wave in planned_ahead(waves())]
    assert [number for number, _ in counts] == planned == list(range(5))
    assert all(count <= number + 2 for number, count in counts)


def test_an_error_of_planning_is_raised_where_its_wave_would_come():
    def waves() -> Iterator[Wave]:
        yield Wave(0, 0, [], [], [], [])
        raise StorageError("the snapshot cannot be read")

    planned = planned_ahead(waves())
    assert next(planned).number == 0
    with pytest.raises(StorageError, match="cannot be read"):
        next(planned)


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

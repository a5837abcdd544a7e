"""How the driver's part of an encode job grows with the rows: CPU seconds and memory of each phase, without images.

    python -m benchmarks.planner FOLDER 10000000
    python -m benchmarks.planner --write 100000 1000000

The rows are synthetic and their codes are one random number each, so what is measured is everything but encoding. The
phases, in order: plan with nothing encoded; write every shard and its record; plan again as a job does that was stopped
just before its commit; commit; open the manifest; plan again as a job does whose images did not change; verify. The
last number is the peak memory in bytes.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.processes import describe_machine, peak_memory
from components.codes.config import CodesConfig
from components.codes.dataset import TokenizerFiles, commit_dataset, read_dataset
from components.codes.job_record import JobRecord, ShardResult, record_shard
from components.codes.plan import EncodeRequest, ShardLedger, Wave, plan_waves
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.verify import check_dataset
from components.codes.writer import build_shard, write_shard
from components.images.config import PixelConfig
from components.images.snapshot import SNAPSHOT_SCHEMA, StoredSnapshot, open_snapshot
from components.images.snapshot_writer import SnapshotWriter
from components.store import commits
from components.store.weights import CONFIG_FILE, WEIGHTS_FILE

RESULT = Path(__file__).resolve().parent / "results" / "planner.json"
ATTEMPT = "000001-benchmark"
SIDE, CODES = 1, 512

ROWS_PER_CHUNK = 1 << 16
"""Rows made at a time."""


def main() -> None:
    """Measure one number of rows in a folder; with --write, several, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("rows", type=int, nargs="?")
    parser.add_argument("--rows-per-wave", type=int, default=1 << 20)
    parser.add_argument("--write", type=int, nargs="+", metavar="ROWS", help="write benchmarks/results/planner.json")
    options = parser.parse_args()
    if options.write:
        _write_result(options.write, options.rows_per_wave)
        return
    phases = _Job(options.folder, options.rows, options.rows_per_wave).phases()
    for name, measured in phases.items():
        print(f"{name}: {measured['cpu_seconds']} CPU-s, {measured['bytes']} bytes")
    print("peak bytes", max(measured["bytes"] for measured in phases.values()))


def _write_result(sizes: list[int], rows_per_wave: int) -> None:
    result: dict[str, object] = {"machine": describe_machine(), "rows_per_wave": rows_per_wave}
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.planner", folder, str(rows)]
            command += ["--rows-per-wave", str(rows_per_wave)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(rows, output, sep="\n")
        lines = [line.split(": ") for line in output.splitlines()[:-1]]
        result[str(rows)] = {
            name: {"cpu_seconds": float(figures.split()[0]), "peak_bytes": int(figures.split()[2])}
            for name, figures in lines
        }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


class _Job:
    """The phases of a job on synthetic rows in `folder`."""

    def __init__(self, folder: Path, rows: int, rows_per_wave: int) -> None:
        _write_snapshot(folder / "snapshot", rows)
        self._rows_per_wave = rows_per_wave
        self._folder = str(folder / "codes")
        self._tokenizer = _tokenizer(folder / "tokenizer")
        level = CodeLevel(name="top", height=SIDE, width=SIDE, codebook_size=CODES)
        snapshot = open_snapshot(str(folder / "snapshot"))
        self._schema = CodeSchema(levels=(level,), tokenizer_digest="", preprocessing=snapshot.preprocessing)
        self._measured: dict[str, dict[str, float]] = {}

    def phases(self) -> dict[str, dict[str, float]]:
        """CPU seconds, of all threads, and peak memory of each phase."""
        with self._measure("snapshot, open"):
            snapshot = open_snapshot(f"{Path(self._folder).parent}/snapshot")
        with self._measure("plan, nothing encoded"):
            assert sum(request.rows.num_rows for wave in self._plan(snapshot) for request in wave.encode)
        with self._measure("plan and write"):
            record = JobRecord(self._folder, ATTEMPT)
            for wave in self._plan(snapshot):
                results = [self._write(request) for request in wave.encode]
                record.close_wave(wave.number, results)
        with self._measure("plan, all on record"):
            recorded = JobRecord(self._folder, ATTEMPT).recorded_results()
            shards = [shard for wave in self._plan(snapshot, recorded=recorded) for shard in wave.keep]
        with self._measure("commit"):
            commit_dataset(
                self._folder,
                self._schema,
                shards,
                [],
                snapshot,
                self._tokenizer,
                attempt=ATTEMPT,
                config=CodesConfig(),
                previous=None,
            )
        with self._measure("open"):
            dataset = read_dataset(self._folder)
        with self._measure("plan, all committed"):
            kept = [shard for wave in self._plan(snapshot, committed=dataset.shards) for shard in wave.keep]
        assert len(kept) == len(dataset.shards)
        with self._measure("verify"):
            assert check_dataset(dataset) == []
        return self._measured

    def _plan(self, snapshot: StoredSnapshot, **finished: object) -> Iterator[Wave]:
        ledger = ShardLedger(self._folder, self._schema, finished.get("committed", ()), finished.get("recorded", ()))  # type: ignore[arg-type]
        return plan_waves(
            snapshot, self._schema, ledger, rows_per_wave=self._rows_per_wave, rows_per_shard=CodesConfig.rows_per_shard
        )

    def _write(self, request: EncodeRequest) -> ShardResult:
        codes = np.random.default_rng(0).integers(0, CODES, (request.rows.num_rows, SIDE, SIDE))
        table = build_shard(self._schema, request.rows, request.versions, [codes], np.zeros(request.rows.num_rows))
        shard = write_shard(self._folder, ATTEMPT, request.name, table)
        result = ShardResult(request.name, self._schema.digest, shard)
        record_shard(self._folder, ATTEMPT, result)
        return result

    @contextlib.contextmanager
    def _measure(self, phase: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins at the memory in use now: proc(5)
        used = time.process_time()
        yield
        self._measured[phase] = {"cpu_seconds": round(time.process_time() - used, 2), "bytes": peak_memory()}


def _tokenizer(folder: Path) -> TokenizerFiles:
    folder.mkdir(parents=True)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (folder / name).write_bytes(b"")
    return TokenizerFiles(folder, "")


def _write_snapshot(folder: Path, rows: int) -> None:
    """Write a snapshot of synthetic rows as a real one is written."""
    attempt = commits.new_attempt()
    writer = SnapshotWriter(str(folder), (), PixelConfig(image_size=256), 0, attempt=attempt)
    for table in _groups(rows):
        writer.add(table)
    digested, beside = writer.finish()
    commits.commit_artifact(str(folder), digested, {}, beside=beside, attempt=attempt)


def _groups(rows: int) -> Iterator[pa.Table]:
    random = np.random.default_rng(0)
    for start in range(0, rows, ROWS_PER_CHUNK):
        count = min(ROWS_PER_CHUNK, rows - start)
        keys = [f"class-{number >> 10:06}/image-{number:010}.jpg" for number in range(start, start + count)]
        columns = {
            "id": random.integers(0, 1 << 62, count),
            "key": keys,
            "label": np.full(count, start >> 10),
            "split": ["train"] * count,
            "copy": np.zeros(count),
            "content": [None] * count,
            "uri": [f"s3://bucket/images/{key}" for key in keys],
            "member": [None] * count,
            "size": random.integers(1 << 16, 1 << 17, count),
            "etag": [random.bytes(16).hex() for _ in range(count)],
        }
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in SNAPSHOT_SCHEMA]
        yield pa.table(arrays, schema=SNAPSHOT_SCHEMA)


if __name__ == "__main__":
    main()

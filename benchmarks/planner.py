"""The planning of an encode job without images: plans synthetic rows twice, and prints seconds and peak memory.

    python -m benchmarks.planner FOLDER 10000000

The first plan finds nothing encoded. The second finds everything encoded, as a job does whose images did not change;
shards that hold only ids, versions, labels and splits stand in for real ones. The last number is the peak memory in
bytes.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.processes import peak_memory
from components.codes.plan import EncodeRequest, ShardLedger, plan_waves
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard
from components.images.config import PixelConfig
from components.images.snapshot import SNAPSHOT_SCHEMA, open_snapshot
from components.images.snapshot_writer import SnapshotWriter
from components.store import commits

ROWS_PER_CHUNK = 1 << 16
"""Rows made at a time."""


def main() -> None:
    """Write a snapshot, then plan it without shards and with shards of all its rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("--rows-per-wave", type=int, default=1 << 20)
    options = parser.parse_args()
    _write_snapshot(options.folder / "snapshot", options.rows)
    snapshot = open_snapshot(str(options.folder / "snapshot"))
    level = CodeLevel(name="top", height=1, width=1, codebook_size=2)
    schema = CodeSchema(levels=(level,), tokenizer_digest="", preprocessing=snapshot.preprocessing)
    shards: list[Shard] = []
    for name in ("nothing encoded", "all encoded"):
        ledger, started = ShardLedger(str(options.folder), schema, shards), time.monotonic()
        rows_to_encode = rows_to_keep = 0
        for wave in plan_waves(snapshot, schema, ledger, rows_per_wave=options.rows_per_wave, rows_per_shard=4096):
            rows_to_encode += sum(request.rows.num_rows for request in wave.encode)
            rows_to_keep += sum(shard.rows for shard in wave.keep)
            shards += [_stand_in(options.folder, request) for request in wave.encode]
        seconds = time.monotonic() - started
        print(f"{name}: {rows_to_encode} rows to encode, {rows_to_keep} to keep, {seconds:.1f} s")
    print("peak bytes", peak_memory())


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


def _stand_in(folder: Path, request: EncodeRequest) -> Shard:
    """A shard of just the columns that the ledger reads."""
    table = request.rows.select(["id", "label", "split"]).append_column("version", pa.array(request.versions))
    pq.write_table(table, folder / request.name)
    keys = request.rows["key"]
    return Shard(
        request.name,
        size=0,
        sha256="",
        rows=table.num_rows,
        splits={},
        first_key=keys[0].as_py(),
        last_key=keys[-1].as_py(),
        used={},
    )


if __name__ == "__main__":
    main()

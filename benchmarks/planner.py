"""The encode job's driver without images: plans synthetic rows twice, and prints seconds, bytes on disk, peak memory.

    python -m benchmarks.planner FOLDER 10000000

First nothing is encoded; then everything is (shards of ids, versions, labels and splits stand in for whole ones), which
is what an incremental job meets. The last number is the peak memory in bytes.
"""

import argparse
import hashlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.codes.plan import EncodeRequest, ShardLedger, plan_waves
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard
from components.images.config import ImagesConfig
from components.images.snapshot import (
    ROWS_PER_GROUP,
    SNAPSHOT_FILE,
    SNAPSHOT_SCHEMA,
    open_snapshot,
    snapshot_to_parquet,
)
from components.store import commits


def main() -> None:
    """Write a snapshot, plan it against nothing, then against itself."""
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
    for name in ("all new", "all known"):
        ledger, started, asked, kept = ShardLedger(str(options.folder), schema, shards), time.monotonic(), 0, 0
        for wave in plan_waves(snapshot, schema, ledger, rows_per_wave=options.rows_per_wave, rows_per_shard=4096):
            asked += sum(one.rows.num_rows for one in wave.encode)
            kept += sum(one.rows for one in wave.keep)
            shards += [_stand_in(options.folder, one) for one in wave.encode]
        print(f"{name}: {asked} rows to encode, {kept} kept, {time.monotonic() - started:.1f} s")
    print("peak bytes", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _write_snapshot(folder: Path, rows: int) -> None:
    """Group by group, with the metadata of a real one."""
    folder.mkdir(parents=True)
    settings = ImagesConfig(source="files", uri="x", image_size=256)
    empty = snapshot_to_parquet(SNAPSHOT_SCHEMA.empty_table(), (), settings, 0)
    schema = pq.read_schema(pa.BufferReader(empty))
    with pq.ParquetWriter(folder / SNAPSHOT_FILE, schema, compression="zstd") as writer:
        for table in _groups(rows):
            writer.write_table(table.cast(schema))
    with (folder / SNAPSHOT_FILE).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    commits.commit_artifact(
        str(folder), [commits.FileEntry(SNAPSHOT_FILE, (folder / SNAPSHOT_FILE).stat().st_size, digest)], {}
    )


def _groups(rows: int) -> Iterator[pa.Table]:
    random = np.random.default_rng(0)
    for start in range(0, rows, ROWS_PER_GROUP):
        count = min(ROWS_PER_GROUP, rows - start)
        keys = [f"class-{number >> 10:06}/image-{number:010}.jpg" for number in range(start, start + count)]
        columns = {
            "id": random.integers(0, 1 << 62, count),
            "key": keys,
            "label": np.full(count, start >> 10),
            "split": ["train"] * count,
            "copy": np.zeros(count),
            "uri": [f"s3://bucket/images/{key}" for key in keys],
            "member": [None] * count,
            "size": random.integers(1 << 16, 1 << 17, count),
            "etag": [random.bytes(16).hex() for _ in range(count)],
        }
        arrays = [pa.array(columns[field.name]).cast(field.type) for field in SNAPSHOT_SCHEMA]
        yield pa.table(arrays, schema=SNAPSHOT_SCHEMA)


def _stand_in(folder: Path, asked: EncodeRequest) -> Shard:
    """A shard of what the ledger reads."""
    table = asked.rows.select(["id", "label", "split"]).append_column("version", pa.array(asked.versions))
    pq.write_table(table, folder / asked.name)
    keys = asked.rows["key"]
    return Shard(asked.name, 0, "", table.num_rows, {}, keys[0].as_py(), keys[-1].as_py(), {})


if __name__ == "__main__":
    main()

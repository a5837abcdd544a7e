"""A small code dataset: 50 rows, two levels, known codes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import build_shard, commit_codes, shard_ranges, write_shard
from components.images.manifest import SCHEMA

LEVELS = (
    CodeLevel(name="top", height=2, width=3, codebook_size=16),
    CodeLevel(name="bottom", height=4, width=6, codebook_size=512),
)


@dataclass(frozen=True)
class Codes:
    """What was written, to compare what is read with."""

    schema: CodeSchema
    rows: pa.Table
    maps: tuple[np.ndarray, ...]
    errors: np.ndarray

    def shard(self, start: int, stop: int) -> pa.Table:
        maps = [codes[start:stop] for codes in self.maps]
        return build_shard(self.schema, self.rows.slice(start, stop - start), maps, self.errors[start:stop])

    def write(self, folder: Path | str, rows_a_shard: int = 16) -> str:
        ranges = shard_ranges(self.rows.num_rows, rows_a_shard)
        shards = [write_shard(str(folder), one.index, self.shard(one.start, one.stop)) for one in ranges]
        return commit_codes(str(folder), self.schema, shards, rows=self.rows.num_rows)


@pytest.fixture
def codes() -> Codes:
    random, n = np.random.default_rng(0), 50
    schema = CodeSchema(levels=LEVELS, tokenizer_digest="t" * 64, snapshot_digest="s" * 64)
    columns = {
        "id": np.arange(n) * 2,
        "key": [f"k{number // 2:02}" for number in range(n)],
        "label": [None if number % 7 == 0 else number % 3 for number in range(n)],
        "split": ["held_out" if number % 5 == 0 else "train" for number in range(n)],
        "copy": np.arange(n) % 2,
        "uri": ["u"] * n,
        "member": [None] * n,
        "size": np.ones(n, np.int64),
        "etag": [""] * n,
    }
    rows = pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)
    maps = tuple(random.integers(0, level.codebook_size, (n, level.height, level.width)) for level in LEVELS)
    return Codes(schema, rows, maps, random.random(n))

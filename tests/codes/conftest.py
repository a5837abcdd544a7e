"""A small code dataset: 50 rows, two levels, known codes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from components.codes.config import CodesConfig
from components.codes.dataset import CodeDataset, TokenizerFiles, commit_dataset, tokenizer_digest
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import build_shard, row_versions, shard_name, write_shard
from components.config import TrainingConfig
from components.images.config import PixelConfig
from components.images.snapshot import SNAPSHOT_SCHEMA, StoredSnapshot
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.stored import TokenizerDescription, pack_tokenizer

LEVELS = (
    CodeLevel(name="top", height=2, width=3, codebook_size=16),
    CodeLevel(name="bottom", height=4, width=6, codebook_size=512),
)


@dataclass(frozen=True)
class Codes:
    """Content of a code dataset in memory, to compare with what is read back."""

    schema: CodeSchema
    rows: pa.Table
    maps: tuple[np.ndarray, ...]
    errors: np.ndarray
    tokenizer: TokenizerFiles
    snapshot: StoredSnapshot

    @property
    def versions(self) -> np.ndarray:
        return row_versions(self.rows)

    def shard(self, start: int, stop: int) -> pa.Table:
        maps = [codes[start:stop] for codes in self.maps]
        rows = self.rows.slice(start, stop - start)
        return build_shard(self.schema, rows, row_versions(rows), maps, self.errors[start:stop])

    def write(self, folder: Path | str, rows_per_shard: int = 16, previous: CodeDataset | None = None) -> CodeDataset:
        shards = []
        for start in range(0, self.rows.num_rows, rows_per_shard):
            table = self.shard(start, min(start + rows_per_shard, self.rows.num_rows))
            rows = self.rows.slice(start, table.num_rows)
            shards.append(
                write_shard(str(folder), "000001-test", shard_name(self.schema, rows, row_versions(rows)), table)
            )
        return self.commit(folder, shards, [], previous)

    def commit(
        self, folder: Path | str, shards: list, rejects: list, previous: CodeDataset | None = None
    ) -> CodeDataset:
        options = {"attempt": "000001-test", "config": CodesConfig(), "previous": previous}
        return commit_dataset(str(folder), self.schema, shards, rejects, self.snapshot, self.tokenizer, **options)


@pytest.fixture
def codes(tmp_path_factory) -> Codes:
    """50 rows with random codes; some have no label, and every fifth is held out."""
    random, n = np.random.default_rng(0), 50
    schema = CodeSchema(levels=LEVELS, tokenizer_digest="t" * 64, preprocessing="p" * 64)
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(b"content of " + name.encode())
    columns = {
        "id": np.arange(n) * 2,
        "key": [f"k{number // 2:02}" for number in range(n)],
        "label": [None if number % 7 == 0 else number % 3 for number in range(n)],
        "split": ["held_out" if number % 5 == 0 else "train" for number in range(n)],
        "copy": np.arange(n) % 2,
        "content": [None] * n,
        "uri": ["u"] * n,
        "member": [None] * n,
        "size": np.ones(n, np.int64),
        "etag": [""] * n,
    }
    rows = pa.table([pa.array(columns[field.name], field.type) for field in SNAPSHOT_SCHEMA], schema=SNAPSHOT_SCHEMA)
    maps = tuple(random.integers(0, level.codebook_size, (n, level.height, level.width)) for level in LEVELS)
    files = TokenizerFiles(folder, "t" * 64, "models:/pets-tokenizer/3", "run")
    snapshot = StoredSnapshot(
        folder="unused",
        digest="s" * 64,
        rows=n,
        classes=("a", "b", "c"),
        pixels=PixelConfig(image_size=16),
        seed=0,
        preprocessing="p" * 64,
    )
    return Codes(schema, rows, maps, random.random(n), files, snapshot)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory) -> TokenizerFiles:
    """A tokenizer of 16x16 grayscale images with initialised codebooks, so that codes differ."""
    return tokenizer_with_seed(tmp_path_factory.mktemp("fitted"), 0)


def tokenizer_with_seed(folder: Path, seed: int) -> TokenizerFiles:
    """A stored tokenizer with levels top (2x2) and bottom (4x4), 16 codes each."""
    torch.manual_seed(seed)
    training = TrainingConfig(updates=1, batch_size=1)
    levels = (
        LevelConfig(name="top", stride=8, codebook_size=16, code_width=4),
        LevelConfig(name="bottom", stride=4, codebook_size=16, code_width=4),
    )
    settings = VQVAEConfig(levels=levels, hidden=8, residual_hidden=8, residual_layers=1, training=training)
    description = TokenizerDescription(architecture=settings, channels=1, image_size=16)
    model = description.build()
    model.train()(torch.rand(64, 1, 16, 16) * 2 - 1)
    for name, data in pack_tokenizer(model, description).items():
        (folder / name).write_bytes(data)
    return TokenizerFiles(folder, tokenizer_digest(folder))


def write_pictures(root: Path, numbers: range, seed: int = 0) -> None:
    """One PNG per number, spread over three folders."""
    for number in numbers:
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (20, 24), dtype=np.uint8)
        path = root / str(number % 3) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((24, 20)).save(path)

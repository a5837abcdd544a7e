"""Codes for training: any row of a split by its number, from this machine's disk.

Priors draw single rows at random, so the shards are unpacked once per machine into memory-mapped arrays, named by the
dataset's digest. components/training/sample_order.py says which rows make a batch.

Shapes: n rows of a split, h w sides of a code map, b rows of a batch, k codes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from components.codes.dataset import CodeDataset, read_dataset
from components.codes.schema import CodeLevel, CodeSchema
from components.config import require
from components.errors import StorageError
from components.images.spread import proportional_order
from components.store import cache, commits, parquet
from components.training.batches import CodeBatch

UNPACKED_LAYOUT = 3
"""Version of the unpacked files: part of their folder's name."""
ROWS_PER_COUNT = 4096
"""Rows whose codes are counted at a time: all rows may be larger than memory."""


@dataclass(frozen=True)
class CodeTable:
    """The rows of one split, in the order of the dataset's shards."""

    split: str
    levels: tuple[CodeLevel, ...]
    """Top first."""
    maps: tuple[np.ndarray, ...]
    """uint16 (uint32 above 65,536 codes) (n, h, w) per level, memory-mapped."""
    labels: np.ndarray
    """int64 (n,); -1 where an image has no label."""
    ids: np.ndarray
    """int64 (n,): the rows' ids in the snapshot."""
    copies: np.ndarray
    """int16 (n,): 0 for an image itself, above 0 for its augmented copies."""

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, positions: np.ndarray) -> CodeBatch:
        """The rows at `positions` (b,), in that order."""
        maps = tuple(torch.from_numpy(codes[positions].astype(np.int64)) for codes in self.maps)  # (b, h, w) per level
        return CodeBatch(maps, torch.from_numpy(np.array(self.labels[positions])))

    def sample(self, count: int) -> np.ndarray:
        """Positions int64 (m,) of `count` originals, all where there are fewer: those of Snapshot.sample."""
        originals = np.flatnonzero(self.copies == 0)
        return originals[proportional_order(self.labels[originals], self.ids[originals])[:count]]

    def number(self, level: str) -> int:
        """Index of the level called `level`, 0 for the top level; raises ValueError when there is none."""
        names = [each.name for each in self.levels]
        require(level in names, f"level must be one of {names}, got {level!r}")
        return names.index(level)


def read_codes(folder: str, split: str, root: Path | None = None) -> CodeTable:
    """One split of the committed dataset in `folder`, unpacked on first use into this machine's cache, below `root`.

    Raises FileNotFoundError when nothing is committed, StorageError when a shard is damaged or the disk is full,
    ValueError when the dataset has no such split.
    """
    dataset = read_dataset(folder)
    splits = dataset.facts.splits
    require(split in splits, f"split must be one of {sorted(splits)}, got {split!r}")
    name = f"codes-{UNPACKED_LAYOUT}-{dataset.digest}"
    unpacked = cache.fetch(name, lambda target: _unpack(dataset, target), root)
    levels = dataset.schema.levels
    maps = tuple(_mapped(unpacked / split / f"{level.name}.npy") for level in levels)
    labels, ids, copies = (_mapped(unpacked / split / f"{name}.npy") for name in ("label", "id", "copy"))
    return CodeTable(split, levels, maps, labels, ids, copies)


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _unpack(dataset: CodeDataset, target: Path) -> None:
    """Unpack all splits into the folder `target` in one pass, one shard in memory at a time."""
    schema = dataset.schema
    levels = schema.levels
    splits = [_SplitFiles(target / split, levels, rows) for split, rows in dataset.facts.splits.items()]
    for shard in dataset.shards:
        table = parquet.from_bytes(commits.read_verified(dataset.folder, vars(shard)))
        if CodeSchema.from_arrow(table.schema) != schema:
            raise StorageError(f"{shard.path} in {dataset.folder} must have its manifest's levels: encode again")
        columns = _columns(table, levels)
        for each in splits:
            each.append(columns, np.asarray(pc.indices_nonzero(pc.equal(table["split"], each.split))))
    for each in splits:
        each.close()


class _SplitFiles:
    """The growing .npy files of one split. Written, not mapped: a full disk must raise an error, not SIGBUS."""

    def __init__(self, folder: Path, levels: tuple[CodeLevel, ...], rows: int) -> None:
        folder.mkdir()
        self.split = folder.name
        self._missing_rows = rows
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "id": (np.int64, (rows,)),
            "label": (np.int64, (rows,)),
            "copy": (np.int16, (rows,)),
        }
        for level in levels:
            shapes[level.name] = (level.type.to_pandas_dtype(), (rows, level.height, level.width))
        self._files = {name: (folder / f"{name}.npy").open("wb") for name in shapes}
        for name, (dtype, shape) in shapes.items():
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._files[name], header)

    def append(self, columns: dict[str, np.ndarray], row_numbers: np.ndarray) -> None:  # row_numbers (r,) of one shard
        self._missing_rows -= len(row_numbers)
        for name, file in self._files.items():
            # The files grow by the same rows in the same order: row i of one belongs to row i of the others.
            file.write(np.ascontiguousarray(columns[name][row_numbers]).data)

    def close(self) -> None:
        if self._missing_rows:
            raise StorageError(f"{self._missing_rows} rows of {self.split} that the manifest counts are in no shard")
        for file in self._files.values():
            file.close()


def _columns(table: pa.Table, levels: tuple[CodeLevel, ...]) -> dict[str, np.ndarray]:
    columns = {
        "id": np.asarray(table["id"]),
        "label": np.asarray(table["label"].fill_null(-1)).astype(np.int64),
        "copy": np.asarray(table["copy"]).astype(np.int16),
    }
    for level in levels:
        codes = pa.chunked_array(table[level.name]).combine_chunks().flatten()  # (n * h * w,)
        columns[level.name] = np.asarray(codes).reshape(-1, level.height, level.width)  # (n, h, w)
    return columns


# --- statistics of codes ----------------------------------------------------------------------------------------------


def code_frequencies(table: CodeTable, level: str, rows: np.ndarray | None = None) -> np.ndarray:
    """int64 (k,): how often each code of a level occurs in the rows at positions `rows`; None: in all rows."""
    number = table.number(level)
    size, total = table.levels[number].codebook_size, len(table) if rows is None else len(rows)
    counts = np.zeros(size, np.int64)
    for start in range(0, total, ROWS_PER_COUNT):
        chunk = slice(start, start + ROWS_PER_COUNT) if rows is None else rows[start : start + ROWS_PER_COUNT]
        counts += np.bincount(table.maps[number][chunk].ravel(), minlength=size)
    return counts


def unigram_entropy(train: CodeTable, held_out: CodeTable, level: str, rows: np.ndarray) -> float:
    """Nats per code of the held-out `rows` (m,) under a model that knows only how frequent each code was in training.

    A prior's nats can be compared with it where they were measured on the same rows.
    Add-one smoothing gives codes that never occur in training a finite cost. Any prior that has learned is below this.
    """
    trained, measured = code_frequencies(train, level), code_frequencies(held_out, level, rows)  # (k,) each
    nats = math.log(trained.sum() + len(trained)) - np.log(trained + 1)  # (k,): -log((count + 1) / (sum + k))
    return float((measured * nats).sum() / measured.sum())


def codebook_usage(table: CodeTable, level: str) -> float:
    """Fraction of a level's codebook that occurs at least once in all images of the table (Zhu et al. 2024 call it the
    utilization rate). It grows with the number of images."""
    return float((code_frequencies(table, level) > 0).mean())

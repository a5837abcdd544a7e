"""Codes for training: all of a split at hand by row number, on this machine's disk.

Priors draw single rows at random, so the shards are unpacked once a machine into memory-mapped arrays, keyed by the
dataset's digest. components/order.py says which rows make a batch.

Shapes: n rows of a split, h w sides of a code map.
"""

import contextlib
import fcntl
import math
import shutil
import tempfile
from collections.abc import Iterator
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
from components.store import commits, parquet
from components.training.batches import CodeBatch

UNPACKED_LAYOUT = 2
"""Version of the unpacked files."""


@dataclass(frozen=True)
class CodeTable:
    """The rows of one split, in the order of the dataset's shards."""

    split: str
    levels: tuple[CodeLevel, ...]
    """Top first."""
    maps: tuple[np.ndarray, ...]
    """uint16 (uint32 above 65,536 codes) (n, h, w) a level, memory-mapped."""
    labels: np.ndarray
    """int64 (n,); -1 where an image has no label."""
    ids: np.ndarray
    """int64 (n,): rows of the snapshot."""

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, positions: np.ndarray) -> CodeBatch:
        """The rows at `positions` (b,), in that order."""
        maps = tuple(torch.from_numpy(codes[positions].astype(np.int64)) for codes in self.maps)
        return CodeBatch(maps, torch.from_numpy(np.array(self.labels[positions])))

    def number(self, level: str) -> int:
        """Place of the level called `level`; raises ValueError when there is none."""
        names = [known.name for known in self.levels]
        require(level in names, f"level must be one of {names}, got {level!r}")
        return names.index(level)


def read_codes(folder: str, split: str, cache: Path | None = None) -> CodeTable:
    """One split of the committed dataset in `folder`, unpacked on first use below `cache` (default: the machine's
    temporary folder). Raises FileNotFoundError when nothing is committed, StorageError when a shard is damaged."""
    dataset = read_dataset(folder)
    splits = dataset.facts["splits"]
    require(split in splits, f"split must be one of {sorted(splits)}, got {split!r}")
    root = cache or Path(tempfile.gettempdir()) / "vqvae2-cache"
    unpacked = root / f"codes-{UNPACKED_LAYOUT}-{dataset.digest}"
    with _disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with (root / f"{unpacked.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # workers of one machine wait for the first; freed when it dies
            if not unpacked.exists():
                _unpack(dataset, unpacked)
    levels = dataset.schema.levels
    maps = tuple(_mapped(unpacked / split / f"{level.name}.npy") for level in levels)
    return CodeTable(split, levels, maps, _mapped(unpacked / split / "label.npy"), _mapped(unpacked / split / "id.npy"))


@contextlib.contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:  # a shard's, not the cache's
        raise
    except OSError as error:
        raise StorageError(
            f"codes must be unpacked into {root}, got: {error}. Free some space or set TMPDIR to another disk"
        ) from error


def _mapped(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _unpack(dataset: CodeDataset, target: Path) -> None:
    """All splits in one pass over the shards, one shard in memory; the folder appears when it is whole."""
    schema = dataset.schema
    levels = schema.levels
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unpacking-"))
    try:
        parts = [_SplitFiles(staging / split, levels, rows) for split, rows in dataset.facts["splits"].items()]
        for shard in dataset.shards:
            table = parquet.from_bytes(commits.read_verified(dataset.folder, vars(shard)))
            if CodeSchema.from_arrow(table.schema) != schema:
                raise StorageError(f"{shard.path} in {dataset.folder} must have its manifest's levels: encode again")
            values = _columns(table, levels)
            for part in parts:
                part.append(values, np.asarray(pc.indices_nonzero(pc.equal(table["split"], part.split))))
        for part in parts:
            part.close()
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _SplitFiles:
    """The growing .npy files of one split. Written, not mapped: a full disk must raise an error, not kill by SIGBUS."""

    def __init__(self, folder: Path, levels: tuple[CodeLevel, ...], rows: int) -> None:
        folder.mkdir()
        self.split = folder.name
        self._left = rows
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {"id": (np.int64, (rows,)), "label": (np.int64, (rows,))}
        for level in levels:
            shapes[level.name] = (level.type.to_pandas_dtype(), (rows, level.height, level.width))
        self._files = {name: (folder / f"{name}.npy").open("wb") for name in shapes}
        for name, (dtype, shape) in shapes.items():
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._files[name], header)

    def append(self, columns: dict[str, np.ndarray], chosen: np.ndarray) -> None:
        self._left -= len(chosen)
        for name, file in self._files.items():
            file.write(np.ascontiguousarray(columns[name][chosen]).data)

    def close(self) -> None:
        if self._left:
            raise StorageError(f"{self._left} rows of {self.split} that the manifest counts are in no shard")
        for file in self._files.values():
            file.close()


def _columns(table: pa.Table, levels: tuple[CodeLevel, ...]) -> dict[str, np.ndarray]:
    columns = {"id": np.asarray(table["id"]), "label": np.asarray(table["label"].fill_null(-1)).astype(np.int64)}
    for level in levels:
        codes = pa.chunked_array(table[level.name]).combine_chunks().flatten()
        columns[level.name] = np.asarray(codes).reshape(-1, level.height, level.width)
    return columns


# --- what the codes are like ------------------------------------------------------------------------------------------


def code_frequencies(table: CodeTable, level: str) -> np.ndarray:
    """int64 (k,): how often each code of a level occurs."""
    number = table.number(level)
    size = table.levels[number].codebook_size
    counts = np.zeros(size, np.int64)
    for start in range(0, len(table), 4096):  # a slice at a time: the map may be larger than memory
        counts += np.bincount(table.maps[number][start : start + 4096].ravel(), minlength=size)
    return counts


def unigram_entropy(train: CodeTable, held_out: CodeTable, level: str) -> float:
    """Nats a held-out code costs a model that knows only how frequent each code was in training.

    Add-one smoothing keeps codes that training never saw finite. A prior that has learned anything is below this.
    """
    seen, asked = code_frequencies(train, level), code_frequencies(held_out, level)
    nats = math.log(seen.sum() + len(seen)) - np.log(seen + 1)
    return float((asked * nats).sum() / asked.sum())


def codebook_usage(table: CodeTable, level: str) -> float:
    """Share of a level's codebook that occurs at least once."""
    return float((code_frequencies(table, level) > 0).mean())

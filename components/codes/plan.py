"""What is left to do, wave by wave: rows to encode, shards to keep, shards to write again without what is gone.

A shard that is committed holds rows of some range of keys, and so does a wave of the snapshot. Only shards whose range
meets the wave's are looked at, only their ids and versions are read, and they are let go once the wave has passed
them: memory holds one wave and the shards that reach beyond it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.codes.schema import CodeSchema
from components.codes.writer import Shard, row_versions, shard_name
from components.images.snapshot import StoredSnapshot
from components.images.split import HELD_OUT, TRAIN
from components.store import objects

SPLITS = (TRAIN, HELD_OUT)
IDENTITY_COLUMNS = ("id", "version", "label", "split")
ROWS_PER_HASH_CHUNK = 1 << 15
"""Rows whose strings are Python's at a time."""


@dataclass(frozen=True)
class EncodeRequest:
    """Rows of the snapshot to encode into the shard `name`."""

    name: str
    rows: pa.Table
    versions: np.ndarray


@dataclass(frozen=True)
class RewriteRequest:
    """A committed shard, to be written again as `name` with the rows that are left; no image is read."""

    name: str
    shard: Shard
    places: np.ndarray
    """Its rows that are left."""
    labels: np.ndarray
    """Their labels now; -1: none."""
    splits: np.ndarray
    """Their splits now, as places in SPLITS."""


@dataclass(frozen=True)
class Wave:
    """What one wave of the snapshot asks for."""

    number: int
    rows: int
    encode: list[EncodeRequest]
    rewrite: list[RewriteRequest]
    keep: list[Shard]
    """Committed shards that the waves have passed and that stay as they are."""


def plan_waves(
    snapshot: StoredSnapshot, schema: CodeSchema, ledger: "ShardLedger", *, rows_per_wave: int, rows_per_shard: int
) -> Iterator[Wave]:
    """The waves of `snapshot`, in order; each once, the shards of the ledger settled with the wave that passes them."""
    for number, rows in enumerate(snapshot.waves(rows_per_wave)):
        parts = range(0, rows.num_rows, ROWS_PER_HASH_CHUNK)
        versions = np.concatenate([row_versions(rows.slice(start, ROWS_PER_HASH_CHUNK)) for start in parts])
        wanted = np.flatnonzero(~ledger.claim(rows, versions))
        encode = []
        for start in range(0, len(wanted), rows_per_shard):
            places = wanted[start : start + rows_per_shard]
            some, own = rows.take(pa.array(places)), versions[places]
            encode.append(EncodeRequest(shard_name(schema, some, own), some, own))
        # The next wave may begin with a copy of this one's last image: what ends there is settled with that wave.
        keep, rewrite = ledger.settle(rows["key"][-1].as_py())
        yield Wave(number, rows.num_rows, encode, rewrite, keep)
    keep, rewrite = ledger.settle(None)
    yield Wave(number + 1, 0, [], rewrite, keep)


@dataclass
class _OpenShard:
    """One committed shard, while waves meet it."""

    shard: Shard
    ids: np.ndarray
    versions: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    alive: np.ndarray = field(init=False)
    changed: bool = False

    def __post_init__(self) -> None:
        self.alive = np.zeros(len(self.ids), bool)

    def keep(self, places: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> None:
        """Its rows at `places` are in the snapshot, with these labels and splits."""
        self.changed |= bool((self.labels[places] != labels).any() or (self.splits[places] != splits).any())
        self.labels[places], self.splits[places] = labels, splits
        self.alive[places] = True


class ShardLedger:
    """The committed shards of one schema, compared with the snapshot as its waves go by."""

    def __init__(self, folder: str, schema: CodeSchema, shards: Sequence[Shard]) -> None:
        self._folder, self._schema = folder, schema
        self._waiting = sorted(shards, key=lambda shard: shard.first_key, reverse=True)
        self._held: list[_OpenShard] = []

    def claim(self, rows: pa.Table, versions: np.ndarray) -> np.ndarray:
        """Which rows of a wave (n,) are encoded already."""
        last = rows["key"][-1].as_py()
        while self._waiting and self._waiting[-1].first_key <= last:
            self._held.append(self._read(self._waiting.pop()))
        if not self._held:
            return np.zeros(rows.num_rows, bool)
        known = np.concatenate([held.ids for held in self._held])
        order = np.argsort(known, kind="stable")
        ids, labels, splits = np.asarray(rows["id"]), _labels(rows), _splits(rows)
        at = order[np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)]
        found = (known[at] == ids) & (np.concatenate([held.versions for held in self._held])[at] == versions)
        wave = np.flatnonzero(found)[np.argsort(at[found])]
        starts = np.cumsum([0, *(len(held.ids) for held in self._held)])
        cuts = np.searchsorted(at[wave], starts)
        for held, start, first, last in zip(self._held, starts, cuts, cuts[1:], strict=False):
            mine = wave[first:last]
            held.keep(at[mine] - start, labels[mine], splits[mine])
        return found

    def settle(self, passed: str | None) -> tuple[list[Shard], list[RewriteRequest]]:
        """Shards that end before the key `passed` (None: all) and stay, and those to be written again."""
        ended = [held for held in self._held if passed is None or held.shard.last_key < passed]
        self._held = [] if passed is None else [held for held in self._held if held.shard.last_key >= passed]
        keep = [held.shard for held in ended if held.alive.all() and not held.changed]
        again = [held for held in ended if held.alive.any() and (held.changed or not held.alive.all())]
        return keep, [self._rewrite(held) for held in again]

    def _read(self, shard: Shard) -> _OpenShard:
        with (
            objects.open_object(objects.join(self._folder, shard.path)) as source,
            pq.ParquetFile(source, pre_buffer=False) as file,
        ):
            rows = file.read(columns=list(IDENTITY_COLUMNS), use_threads=False)
        return _OpenShard(shard, np.asarray(rows["id"]), np.asarray(rows["version"]), _labels(rows), _splits(rows))

    def _rewrite(self, held: _OpenShard) -> RewriteRequest:
        places = np.flatnonzero(held.alive)
        labels, splits = held.labels[places], held.splits[places]
        ids = held.ids[places]
        rows = pa.table({"id": ids, "label": labels, "split": [SPLITS[split] for split in splits]})
        return RewriteRequest(shard_name(self._schema, rows, held.versions[places]), held.shard, places, labels, splits)


def _labels(rows: pa.Table) -> np.ndarray:
    return np.asarray(rows["label"].fill_null(-1)).astype(np.int32)


def _splits(rows: pa.Table) -> np.ndarray:
    return np.asarray(pc.index_in(rows["split"], pa.array(SPLITS))).astype(np.uint8)

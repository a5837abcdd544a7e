"""What remains to be done, wave by wave: rows to encode, committed shards that stay, committed shards to rewrite.

A wave is a run of consecutive rows of the snapshot; a committed shard holds rows of a range of keys. Both are sorted
by key, so the ledger opens a shard when the first wave reaches its first key, and settles it when the waves have passed
its last key: memory holds one wave and the identities (ids, versions, labels, splits) of the shards that overlap it.
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
from components.images.split import SPLITS
from components.store import objects

IDENTITY_COLUMNS = ("id", "version", "label", "split")
ROWS_PER_HASH_CHUNK = 1 << 15
"""Rows hashed per chunk: bounds the memory that their keys and etags take as Python strings."""


@dataclass(frozen=True)
class EncodeRequest:
    """Rows of the snapshot to encode into the shard `name`."""

    name: str
    rows: pa.Table
    versions: np.ndarray
    """int64 (n,): `row_versions` of the rows."""


@dataclass(frozen=True)
class RewriteRequest:
    """A committed shard to write again as `name`, with those of its rows that the snapshot still lists.

    Labels and splits are updated, codes stay, and no image is read.
    """

    name: str
    shard: Shard
    row_numbers: np.ndarray
    """int64 (n,): rows of the shard that stay."""
    labels: np.ndarray
    """int32 (n,): their labels in the snapshot; -1: none."""
    splits: np.ndarray
    """uint8 (n,): their splits in the snapshot, as indices into SPLITS."""


ShardRequest = EncodeRequest | RewriteRequest
"""One shard to write."""


@dataclass(frozen=True)
class Wave:
    """What one wave of the snapshot requires."""

    number: int
    rows: int
    encode: list[EncodeRequest]
    rewrite: list[RewriteRequest]
    keep: list[Shard]
    """Committed shards that no later wave overlaps and that stay as they are."""


def plan_waves(
    snapshot: StoredSnapshot, schema: CodeSchema, ledger: "ShardLedger", *, rows_per_wave: int, rows_per_shard: int
) -> Iterator[Wave]:
    """The waves of `snapshot` in order, then one without rows that settles the last shards.

    Every row of the snapshot is in exactly one request or settled shard, and every shard of the ledger is settled once.
    """
    for number, rows in enumerate(snapshot.waves(rows_per_wave)):
        chunks = range(0, rows.num_rows, ROWS_PER_HASH_CHUNK)
        versions = np.concatenate([row_versions(rows.slice(start, ROWS_PER_HASH_CHUNK)) for start in chunks])  # (n,)
        unencoded = np.flatnonzero(~ledger.claim(rows, versions))  # (u,): row numbers in the wave
        encode = []
        for start in range(0, len(unencoded), rows_per_shard):
            chosen = unencoded[start : start + rows_per_shard]
            shard_rows, shard_versions = rows.take(pa.array(chosen)), versions[chosen]
            encode.append(EncodeRequest(shard_name(schema, shard_rows, shard_versions), shard_rows, shard_versions))
        # The next wave may begin with a copy of this wave's last image, whose key is the same: a shard that ends with
        # this key stays open until that wave has claimed its rows.
        keep, rewrite = ledger.settle(rows["key"][-1].as_py())
        yield Wave(number, rows.num_rows, encode, rewrite, keep)
    keep, rewrite = ledger.settle(None)
    yield Wave(number + 1, 0, [], rewrite, keep)


@dataclass
class _OpenShard:
    """The identities of one committed shard of m rows, while waves overlap it."""

    shard: Shard
    ids: np.ndarray
    """int64 (m,)"""
    versions: np.ndarray
    """int64 (m,)"""
    labels: np.ndarray
    """int32 (m,)"""
    splits: np.ndarray
    """uint8 (m,)"""
    claimed: np.ndarray = field(init=False)
    """bool (m,): rows that a wave has listed in the same version."""
    relabelled: bool = False
    """Whether the snapshot lists a claimed row with another label or split."""

    def __post_init__(self) -> None:
        self.claimed = np.zeros(len(self.ids), bool)

    def claim_rows(self, row_numbers: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> None:
        """The snapshot lists the rows `row_numbers` (k,), with labels (k,) and splits (k,)."""
        same = (self.labels[row_numbers] == labels).all() and (self.splits[row_numbers] == splits).all()
        self.relabelled |= not bool(same)
        self.labels[row_numbers], self.splits[row_numbers] = labels, splits  # as a rewrite would store them
        self.claimed[row_numbers] = True


class ShardLedger:
    """The committed shards of one schema, compared with the snapshot wave by wave.

    A shard waits until a wave reaches its first key, is open while waves may list its rows, and is settled (kept,
    rewritten or dropped) once the waves have passed its last key.
    """

    def __init__(self, folder: str, schema: CodeSchema, shards: Sequence[Shard]) -> None:
        self._folder, self._schema = folder, schema
        self._waiting = sorted(shards, key=lambda shard: shard.first_key, reverse=True)  # next one last: pop is O(1)
        self._open: list[_OpenShard] = []

    def claim(self, rows: pa.Table, versions: np.ndarray) -> np.ndarray:
        """bool (n,): which rows of a wave are encoded already; marks them as claimed in their shards.

        Shapes: n rows of the wave; s open shards with m rows in all, numbered across shards; k rows in both.
        """
        last_key = rows["key"][-1].as_py()
        while self._waiting and self._waiting[-1].first_key <= last_key:
            self._open.append(self._read(self._waiting.pop()))
        if not self._open:
            return np.zeros(rows.num_rows, bool)
        stored_ids = np.concatenate([each.ids for each in self._open])  # (m,), shard after shard
        stored_versions = np.concatenate([each.versions for each in self._open])  # (m,)
        by_id = np.argsort(stored_ids, kind="stable")  # (m,): stored_ids[by_id] rises
        ids, labels, splits = np.asarray(rows["id"]), _labels(rows), _splits(rows)  # (n,) each
        # searchsorted gives where an id is or would be; m, for an id above all stored ones, must stay a valid index.
        ranks = np.minimum(np.searchsorted(stored_ids, ids, sorter=by_id), len(stored_ids) - 1)  # (n,)
        stored_rows = by_id[ranks]  # (n,): the stored row of each id, or an arbitrary one where there is none
        encoded = (stored_ids[stored_rows] == ids) & (stored_versions[stored_rows] == versions)  # (n,)
        # By rising stored row, the rows of one open shard are consecutive: from its first row to the next one's.
        claimed = np.flatnonzero(encoded)[np.argsort(stored_rows[encoded])]  # (k,): row numbers in the wave
        first_rows = np.cumsum([0, *(len(each.ids) for each in self._open)])  # (s + 1,): first row per shard, then m
        cuts = np.searchsorted(stored_rows[claimed], first_rows)  # (s + 1,): indices into `claimed`
        for each, first_row, start, stop in zip(self._open, first_rows[:-1], cuts[:-1], cuts[1:], strict=True):
            # Invariant: claimed[start:stop] are the wave's rows in this shard, those before are in the shards before.
            wave_rows = claimed[start:stop]
            each.claim_rows(stored_rows[wave_rows] - first_row, labels[wave_rows], splits[wave_rows])
        return encoded

    def settle(self, passed_key: str | None) -> tuple[list[Shard], list[RewriteRequest]]:
        """Shards that end before `passed_key` (None: all), split into those that stay and those to be rewritten.

        A shard none of whose rows was claimed is in neither: the snapshot lists none of its images any more.
        """
        ended = [each for each in self._open if passed_key is None or each.shard.last_key < passed_key]
        self._open = [] if passed_key is None else [each for each in self._open if each.shard.last_key >= passed_key]
        keep = [each.shard for each in ended if each.claimed.all() and not each.relabelled]
        stale = [each for each in ended if each.claimed.any() and (each.relabelled or not each.claimed.all())]
        return keep, [self._rewrite(each) for each in stale]

    def _read(self, shard: Shard) -> _OpenShard:
        with (
            objects.open_object(objects.join(self._folder, shard.path)) as source,
            pq.ParquetFile(source, pre_buffer=False) as file,
        ):
            rows = file.read(columns=list(IDENTITY_COLUMNS), use_threads=False)
        return _OpenShard(shard, np.asarray(rows["id"]), np.asarray(rows["version"]), _labels(rows), _splits(rows))

    def _rewrite(self, stale: _OpenShard) -> RewriteRequest:
        row_numbers = np.flatnonzero(stale.claimed)  # (k,)
        labels, splits = stale.labels[row_numbers], stale.splits[row_numbers]  # (k,) each
        split_names = [SPLITS[split] for split in splits]
        identities = pa.table({"id": stale.ids[row_numbers], "label": labels, "split": split_names})
        name = shard_name(self._schema, identities, stale.versions[row_numbers])
        return RewriteRequest(name, stale.shard, row_numbers, labels, splits)


def _labels(rows: pa.Table) -> np.ndarray:
    return np.asarray(rows["label"].fill_null(-1)).astype(np.int32)  # (n,)


def _splits(rows: pa.Table) -> np.ndarray:
    return np.asarray(pc.index_in(rows["split"], pa.array(SPLITS))).astype(np.uint8)  # (n,)

"""What remains to be done, wave by wave: rows to encode, finished shards that stay, finished shards to rewrite.

A shard is finished when a manifest lists it, or when the record of a job that was stopped does. A wave is a run of
consecutive rows of the snapshot; a shard holds rows of a range of keys. Both are sorted by key, so the ledger opens a
shard when the first wave reaches its first key, and settles it when the waves have passed its last key: memory holds
one wave, the identities (ids, versions, labels, splits) of the shards that overlap it and of SHARDS_READ_AHEAD more,
and the rejects on record.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.codes.job_record import ShardResult
from components.codes.schema import CodeSchema
from components.codes.writer import Shard, row_versions, shard_name
from components.images.rejects import Reject
from components.images.snapshot import StoredSnapshot
from components.images.split import SPLITS
from components.store import objects, parquet
from components.store.read_ahead import map_ahead

IDENTITY_COLUMNS = ("id", "version", "label", "split")
ROWS_PER_HASH_CHUNK = 1 << 15
"""Rows hashed per chunk: bounds the memory that their keys and etags take as Python strings."""
SHARDS_READ_AHEAD = 16
"""Shards whose identities are read at the same time, before a wave reaches them."""


@dataclass(frozen=True)
class EncodeRequest:
    """Rows of the snapshot to encode into the shard `name`."""

    name: str
    rows: pa.Table
    versions: np.ndarray
    """int64 (n,): `row_versions` of the rows."""


@dataclass(frozen=True)
class RewriteRequest:
    """A finished shard to write again as `name`, with those of its rows that the snapshot still lists.

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
    """Finished shards that no later wave overlaps and that stay as they are."""
    rejects: list[Reject]
    """Rows of the wave that an earlier job found unusable, in the same version."""

    @property
    def requests(self) -> list[ShardRequest]:
        """The shards to write."""
        return [*self.encode, *self.rewrite]


def plan_waves(
    snapshot: StoredSnapshot, schema: CodeSchema, ledger: "ShardLedger", *, rows_per_wave: int, rows_per_shard: int
) -> Iterator[Wave]:
    """The waves of `snapshot` in order, then one without rows that settles the last shards.

    Every row of the snapshot is in exactly one request, settled shard or list of rejects.
    """
    number = 0
    for number, rows in enumerate(snapshot.waves(rows_per_wave), start=1):
        chunks = range(0, rows.num_rows, ROWS_PER_HASH_CHUNK)
        versions = np.concatenate([row_versions(rows.slice(start, ROWS_PER_HASH_CHUNK)) for start in chunks])  # (n,)
        missing = np.flatnonzero(~ledger.claim(rows, versions))  # (m,): row numbers in the wave
        rejects = ledger.rejects(rows, versions, missing)
        unencoded = np.setdiff1d(missing, list(rejects)).astype(np.int64)  # (u,)
        encode = []
        for start in range(0, len(unencoded), rows_per_shard):
            chosen = unencoded[start : start + rows_per_shard]
            # Arrow copies all of a table from which it takes rows: only what lies between the first and the last.
            window = rows.slice(chosen[0], chosen[-1] + 1 - chosen[0])
            shard_rows, shard_versions = window.take(pa.array(chosen - chosen[0])), versions[chosen]
            encode.append(EncodeRequest(shard_name(schema, shard_rows, shard_versions), shard_rows, shard_versions))
        # The next wave may begin with a copy of this wave's last image, whose key is the same: a shard that ends with
        # this key stays open until that wave has claimed its rows.
        keep, rewrite = ledger.settle(rows["key"][-1].as_py())
        yield Wave(number, rows.num_rows, encode, rewrite, keep, list(rejects.values()))
    keep, rewrite = ledger.settle(None)
    yield Wave(number + 1, 0, [], rewrite, keep, [])


def planned_ahead(waves: Iterator[Wave]) -> Generator[Wave]:
    """The same waves; while one is worked on, another thread plans the next."""
    with ThreadPoolExecutor(1, "planner") as thread:
        following = thread.submit(next, waves, None)
        while wave := following.result():
            following = thread.submit(next, waves, None)
            yield wave


@dataclass
class _OpenShard:
    """The identities of one finished shard of m rows, while waves overlap it."""

    shard: Shard
    rank: int
    """Of two shards with the same row, the one of lower rank keeps it."""
    ids: np.ndarray
    """int64 (m,)"""
    versions: np.ndarray
    """int64 (m,)"""
    labels: np.ndarray
    """int32 (m,)"""
    splits: np.ndarray
    """uint8 (m,)"""
    claimed: np.ndarray = field(init=False)
    """bool (m,): rows that a wave has listed in the same version, and that no other shard keeps."""
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
    """The finished shards of one schema, compared with the snapshot wave by wave.

    A shard waits until a wave reaches its first key, is open while waves may list its rows, and is settled (kept,
    rewritten or dropped) once the waves have passed its last key.
    """

    def __init__(
        self, folder: str, schema: CodeSchema, committed: Sequence[Shard], recorded: Sequence[ShardResult] = ()
    ) -> None:
        """`recorded` are the results of jobs that were stopped, the newest last.

        A row may be in several shards, for example in a committed one and in its rewritten copy on record. What is
        newer was made with what is older in view: it keeps the row.
        """
        self._folder, self._schema = folder, schema
        newest_first = [*(result.shard for result in reversed(recorded) if result.shard), *committed]
        ranked = {shard.path: (rank, shard) for rank, shard in reversed(list(enumerate(newest_first)))}
        waiting = sorted(ranked.values(), key=lambda each: each[1].first_key)
        self._first_keys = deque(shard.first_key for _, shard in waiting)
        self._waiting = map_ahead(lambda each: _open_shard(folder, *each), waiting, SHARDS_READ_AHEAD)
        self._open: list[_OpenShard] = []
        self._rejects = {(row.id, row.version): row.reject for result in recorded for row in result.rejected}
        self._rejected_ids = np.array([row_id for row_id, _ in self._rejects], np.int64)  # (r,)

    def claim(self, rows: pa.Table, versions: np.ndarray) -> np.ndarray:
        """bool (n,): which rows of a wave are encoded already; marks them as claimed in their shards.

        Shapes: n rows of the wave; m rows of one open shard; k rows in both that no shard before has.
        """
        last_key = rows["key"][-1].as_py()
        while self._first_keys and self._first_keys[0] <= last_key:
            self._first_keys.popleft()
            self._open.append(next(self._waiting))
        self._open.sort(key=lambda each: each.rank)
        ids, labels, splits = np.asarray(rows["id"]), _labels(rows), _splits(rows)  # (n,) each
        encoded = np.zeros(rows.num_rows, bool)
        by_id = np.argsort(ids)  # (n,): ids[by_id] rises
        for each in self._open:
            # searchsorted gives where an id is or would be; n, for an id above all, must become a valid index.
            ranks = np.minimum(np.searchsorted(ids, each.ids, sorter=by_id), rows.num_rows - 1)  # (m,)
            wave_rows = by_id[ranks]  # (m,): the row of the wave with each stored id, any row where there is none
            listed = (ids[wave_rows] == each.ids) & (versions[wave_rows] == each.versions)  # (m,)
            stored_rows = np.flatnonzero(listed & ~encoded[wave_rows])  # (k,)
            claimed = wave_rows[stored_rows]  # (k,)
            encoded[claimed] = True
            each.claim_rows(stored_rows, labels[claimed], splits[claimed])
        return encoded

    def rejects(self, rows: pa.Table, versions: np.ndarray, missing: np.ndarray) -> dict[int, Reject]:
        """Those of the `missing` rows of a wave that are on record as unusable in the same version, by row number."""
        ids = np.asarray(rows["id"])  # (n,)
        candidates = missing[np.isin(ids[missing], self._rejected_ids)].tolist()
        identities = {number: (int(ids[number]), int(versions[number])) for number in candidates}
        return {number: self._rejects[each] for number, each in identities.items() if each in self._rejects}

    def settle(self, passed_key: str | None) -> tuple[list[Shard], list[RewriteRequest]]:
        """Shards that end before `passed_key` (None: all), split into those that stay and those to be rewritten.

        A shard none of whose rows was claimed is in neither: the snapshot lists none of its images any more, or other
        shards have them.
        """
        ended = [each for each in self._open if passed_key is None or each.shard.last_key < passed_key]
        self._open = [] if passed_key is None else [each for each in self._open if each.shard.last_key >= passed_key]
        keep = [each.shard for each in ended if each.claimed.all() and not each.relabelled]
        stale = [each for each in ended if each.claimed.any() and (each.relabelled or not each.claimed.all())]
        return keep, [self._rewrite(each) for each in stale]

    def _rewrite(self, stale: _OpenShard) -> RewriteRequest:
        row_numbers = np.flatnonzero(stale.claimed)  # (k,)
        labels, splits = stale.labels[row_numbers], stale.splits[row_numbers]  # (k,) each
        split_names = [SPLITS[split] for split in splits]
        identities = pa.table({"id": stale.ids[row_numbers], "label": labels, "split": split_names})
        name = shard_name(self._schema, identities, stale.versions[row_numbers])
        return RewriteRequest(name, stale.shard, row_numbers, labels, splits)


def _open_shard(folder: str, rank: int, shard: Shard) -> _OpenShard:
    """Read the identities: a small part of a shard, in two requests."""
    uri = objects.join(folder, shard.path)
    rows = parquet.read_columns(lambda start, stop: objects.read_range(uri, start, stop), shard.size, IDENTITY_COLUMNS)
    return _OpenShard(shard, rank, np.asarray(rows["id"]), np.asarray(rows["version"]), _labels(rows), _splits(rows))


def _labels(rows: pa.Table) -> np.ndarray:
    return np.asarray(rows["label"].fill_null(-1)).astype(np.int32)  # (n,)


def _splits(rows: pa.Table) -> np.ndarray:
    return np.asarray(pc.index_in(rows["split"], pa.array(SPLITS))).astype(np.uint8)  # (n,)

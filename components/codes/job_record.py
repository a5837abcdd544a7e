"""What an encode job has done so far, stored in the dataset's folder until a manifest lists it: killed jobs resume.

.work/<attempt>/notes/<shard>.json    one ShardResult, written as soon as its shard is
.work/<attempt>/waves/<number>.jsonl  one ShardResult per line: a finished wave, which replaces the notes of its shards

Each attempt has a record of its own, so that a stalled one cannot harm that of its successor.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import NamedTuple

from components.codes.writer import Shard
from components.images.rejects import Reject
from components.store import commits, leftovers, objects

WAVES_FOLDER = "waves"
SHARD_NOTES_FOLDER = "notes"
CONCURRENT_REQUESTS = 16
"""Files of the record that are read or removed at the same time."""


class RejectedRow(NamedTuple):
    """One row of a request that could not be used."""

    id: int
    version: int
    """`row_versions` of the row: while it is equal, the image is not decoded again."""
    reject: Reject


@dataclass(frozen=True)
class ShardResult:
    """The shard and the rejects of one request."""

    name: str
    """Path of the requested shard."""
    schema: str
    """Digest of the CodeSchema that it was made with: results of another one are of no use."""
    shard: Shard | None
    """None when no row could be used, so that no file was written."""
    rejected: tuple[RejectedRow, ...] = ()

    def to_json(self) -> str:
        """One line; `from_json` reads it back equal."""
        return json.dumps(asdict(self))

    def is_stored(self, sizes: Mapping[str, int]) -> bool:
        """Whether its file is whole, or it has none; `sizes` are those of the dataset's files by path."""
        return self.shard is None or sizes.get(self.shard.path) == self.shard.size

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardResult":
        """Read what `to_json` wrote."""
        record = json.loads(text)
        shard = Shard(**record["shard"]) if record["shard"] else None
        rejected = tuple(RejectedRow(row, version, Reject(*reject)) for row, version, reject in record["rejected"])
        return cls(record["name"], record["schema"], shard, rejected)


class JobRecord:
    """The results in a dataset's folder that no manifest lists yet, as they were when the job started."""

    def __init__(self, folder: str, attempt: str) -> None:
        """Read the records of all attempts; what is added goes to that of `attempt`."""
        work = objects.join(folder, commits.WORK_FOLDER)
        self._own = objects.join(work, attempt)
        self._folder, self._attempt = folder, attempt
        stored_sizes = objects.object_sizes(folder)
        paths = [
            path
            for path in sorted(leftovers.open_work(folder))
            if commits.name_of(path).startswith((f"{WAVES_FOLDER}/", f"{SHARD_NOTES_FOLDER}/"))
        ]
        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as threads:
            contents = list(threads.map(lambda path: _read(objects.join(work, path)), paths))
        results = [ShardResult.from_json(line) for content in contents for line in content.splitlines()]
        self._results = [result for result in results if result.is_stored(stored_sizes)]

    def recorded_results(self) -> list[ShardResult]:
        """Every recorded result whose file is there with its full size, or that has no file; newer attempts last.

        One may be repeated, where a job was stopped while it recorded a wave.
        """
        return self._results

    def close_wave(self, number: int, results: Sequence[ShardResult]) -> None:
        """Record all results of a wave in one file; the notes of its shards are removed."""
        lines = "\n".join(result.to_json() for result in results)
        objects.write_bytes(objects.join(self._own, WAVES_FOLDER, f"{number:08}.jsonl"), lines.encode())
        # After the write: a crash in between leaves notes that repeat the wave's lines.
        notes = [objects.join(self._own, SHARD_NOTES_FOLDER, f"{result.name}.json") for result in results]
        with ThreadPoolExecutor(CONCURRENT_REQUESTS) as threads:
            list(threads.map(objects.delete, notes))  # not the folder: shards of the next wave may be written already

    def clear(self) -> None:
        """Remove the records of this attempt and of those before it: the manifest lists their shards now."""
        leftovers.clear_work(self._folder, self._attempt)


def _read(uri: str) -> bytes:
    """A part of a record; empty when the attempt that wrote it, and may still be at work, removed it meanwhile."""
    try:
        return objects.read_bytes(uri)
    except FileNotFoundError:
        return b""


def record_shard(folder: str, attempt: str, result: ShardResult) -> None:
    """Mark a shard as written; the mark is kept until its wave is recorded as a whole."""
    path = objects.join(folder, commits.WORK_FOLDER, attempt, SHARD_NOTES_FOLDER, f"{result.name}.json")
    objects.write_bytes(path, result.to_json().encode())

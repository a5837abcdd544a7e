"""What an encode job has done so far, stored in the dataset's folder until the manifest lists it: killed jobs resume.

.work/notes/<shard>.json    one ShardResult, written as soon as its shard is
.work/waves/<number>.jsonl  one ShardResult per line: a finished wave, which replaces the notes of its shards
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from components.codes.writer import Shard
from components.images.rejects import Reject
from components.store import commits, objects

WAVES_FOLDER = "waves"
SHARD_NOTES_FOLDER = "notes"


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

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardResult":
        """Read what `to_json` wrote."""
        record = json.loads(text)
        shard = Shard(**record["shard"]) if record["shard"] else None
        rejected = tuple(RejectedRow(row, version, Reject(*reject)) for row, version, reject in record["rejected"])
        return cls(record["name"], record["schema"], shard, rejected)


class JobRecord:
    """The results in a dataset's folder that no manifest lists yet, as they were when the job started."""

    def __init__(self, folder: str) -> None:
        self._work = objects.join(folder, commits.WORK_FOLDER)
        self._stored_sizes = objects.object_sizes(folder)
        self._results: dict[str, ShardResult] = {}
        for path in objects.object_sizes(self._work):
            if path.startswith((f"{WAVES_FOLDER}/", f"{SHARD_NOTES_FOLDER}/")):
                lines = objects.read_bytes(objects.join(self._work, path)).splitlines()
                self._results |= {result.name: result for result in map(ShardResult.from_json, lines)}

    def recorded_results(self) -> list[ShardResult]:
        """Every recorded result whose file is there with its full size, or that has no file."""
        return [
            r for r in self._results.values() if r.shard is None or self._stored_sizes.get(r.shard.path) == r.shard.size
        ]

    def close_wave(self, number: int, results: Sequence[ShardResult]) -> None:
        """Record all results of a wave in one file; the notes of its shards are removed."""
        lines = "\n".join(result.to_json() for result in results)
        objects.write_bytes(objects.join(self._work, WAVES_FOLDER, f"{number:08}.jsonl"), lines.encode())
        # After the write: a crash in between leaves notes that repeat the wave's lines.
        for result in results:
            objects.delete(objects.join(self._work, SHARD_NOTES_FOLDER, f"{result.name}.json"))

    def clear(self) -> None:
        """Remove the record: the manifest lists the shards now."""
        objects.delete(self._work)


def record_shard(folder: str, result: ShardResult) -> None:
    """Mark a shard as written; the mark is kept until its wave is recorded as a whole."""
    path = objects.join(folder, commits.WORK_FOLDER, SHARD_NOTES_FOLDER, f"{result.name}.json")
    objects.write_bytes(path, result.to_json().encode())

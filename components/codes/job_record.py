"""What an encode job has done so far, stored in the dataset's folder until a manifest lists it: killed jobs resume.

.work/<attempt>/notes/<shard>.json    one ShardResult, written as soon as its shard is
.work/<attempt>/waves/<number>.jsonl  one ShardResult per line: a finished wave, which replaces the notes of its shards

Each attempt has a record of its own, so that a stalled one cannot harm that of its successor.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from components.codes.writer import Shard
from components.images.rejects import Reject
from components.store import commits, objects

WAVES_FOLDER = "waves"
SHARD_NOTES_FOLDER = "notes"


@dataclass(frozen=True)
class ShardResult:
    """The shard and the rejects of one request."""

    name: str
    """Path of the requested shard."""
    shard: Shard | None
    """None when no row could be used, so that no file was written."""
    rejects: tuple[Reject, ...] = ()

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
        return cls(record["name"], shard, tuple(Reject(*reject) for reject in record["rejects"]))


class JobRecord:
    """The results in a dataset's folder that no manifest lists yet, as they were when the job started."""

    def __init__(self, folder: str, attempt: str) -> None:
        """Read the records of all attempts; what is added goes to that of `attempt`."""
        work = objects.join(folder, commits.WORK_FOLDER)
        self._own = objects.join(work, attempt)
        self._folder, self._attempt = folder, attempt
        stored_sizes = objects.object_sizes(folder)
        self._results: dict[str, ShardResult] = {}
        for path in sorted(objects.object_sizes(work)):
            if commits.name_of(path).startswith((f"{WAVES_FOLDER}/", f"{SHARD_NOTES_FOLDER}/")):
                lines = objects.read_bytes(objects.join(work, path)).splitlines()
                results = [ShardResult.from_json(line) for line in lines]
                self._results |= {result.name: result for result in results if result.is_stored(stored_sizes)}

    def recorded_results(self) -> list[ShardResult]:
        """Every recorded result whose file is there with its full size, or that has no file."""
        return list(self._results.values())

    def find(self, name: str) -> ShardResult | None:
        """The recorded result of the shard `name`; None without one, or if its file is missing or incomplete."""
        return self._results.get(name)

    def close_wave(self, number: int, results: Sequence[ShardResult]) -> None:
        """Record all results of a wave in one file; the notes of its shards are removed."""
        lines = "\n".join(result.to_json() for result in results)
        objects.write_bytes(objects.join(self._own, WAVES_FOLDER, f"{number:08}.jsonl"), lines.encode())
        # After the write: a crash in between leaves notes that repeat the wave's lines.
        objects.delete(objects.join(self._own, SHARD_NOTES_FOLDER))

    def clear(self) -> None:
        """Remove the records of this attempt and of those before it: the manifest lists their shards now."""
        commits.clear_work(self._folder, self._attempt)


def record_shard(folder: str, attempt: str, result: ShardResult) -> None:
    """Mark a shard as written; the mark is kept until its wave is recorded as a whole."""
    path = objects.join(folder, commits.WORK_FOLDER, attempt, SHARD_NOTES_FOLDER, f"{result.name}.json")
    objects.write_bytes(path, result.to_json().encode())

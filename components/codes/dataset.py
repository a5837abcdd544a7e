"""A committed code dataset: the files of its folder, and the manifest that makes them one.

<output>/<tokenizer digest>/
    manifest.json               written last: what the dataset is
    part-<hash>.parquet         shards
    rejects.parquet             images that could not be used
    tokenizer/                  the model that made the codes, and that decodes them
    .work/                      what a running job keeps
    .lease/                     who is at work
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.codes.config import CodesConfig
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard
from components.config import require
from components.errors import StorageError
from components.images.rejects import REJECTS_FILE, Reject, rejects_table
from components.images.snapshot import StoredSnapshot
from components.store import commits, objects, parquet
from components.store.weights import CONFIG_FILE, WEIGHTS_FILE

TOKENIZER_FOLDER = "tokenizer"
LEASE_FOLDER = ".lease"


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer on this machine's disk, and where it came from."""

    folder: Path
    digest: str
    model: str | None = None
    """Its version in the registry, models:/<name>/<version>; None: it is not registered."""
    run_id: str | None = None
    """MLflow run that fitted it; None: not known."""


def tokenizer_digest(folder: Path) -> str:
    """Digest of the tokenizer stored in `folder`: that of the artifact it is, wherever its files lie."""
    names = (CONFIG_FILE, WEIGHTS_FILE)
    missing = [name for name in names if not (folder / name).is_file()]
    require(not missing, f"a tokenizer's folder must hold {' and '.join(names)}, {folder} has no {missing}")
    return commits.digest_of_files([commits.file_entry(name, (folder / name).read_bytes()) for name in names])


def copy_tokenizer(folder: str, tokenizer: TokenizerFiles) -> list[commits.FileEntry]:
    """Copy the tokenizer into the dataset: workers load it from there, and codes can be decoded for ever."""
    entries = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        data = (tokenizer.folder / name).read_bytes()
        path = f"{TOKENIZER_FOLDER}/{name}"
        entries.append(commits.file_entry(path, data))
        objects.write_bytes(objects.join(folder, path), data)
    return entries


@dataclass(frozen=True)
class CodeDataset:
    """What a manifest says."""

    folder: str
    digest: str
    version: int
    """Counts the commits to this folder that changed it."""
    shards: tuple[Shard, ...]
    """By rising first key."""
    files: Mapping[str, commits.FileEntry]
    """All files by path, shards among them."""
    facts: Mapping[str, Any]

    @property
    def schema(self) -> CodeSchema:
        """What its shards have in common."""
        levels = tuple(CodeLevel(**level) for level in self.facts["levels"])
        return CodeSchema(
            levels=levels, tokenizer_digest=self.facts["tokenizer"], preprocessing=self.facts["preprocessing"]
        )

    def usage(self) -> dict[str, float]:
        """Share of each level's codebook that training rows use."""
        return {
            level.name: _usage([shard.used[level.name] for shard in self.shards], level) for level in self.schema.levels
        }

    @property
    def bytes_per_image(self) -> float:
        """Of the shards alone."""
        return sum(shard.size for shard in self.shards) / max(1, self.facts["rows"])


def _usage(used: Sequence[str], level: CodeLevel) -> float:
    seen = np.zeros(-(-level.codebook_size // 8), np.uint8)
    for bits in used:
        seen |= np.frombuffer(bytes.fromhex(bits), np.uint8)
    return float(np.unpackbits(seen).sum() / level.codebook_size)


def read_dataset(folder: str) -> CodeDataset:
    """The committed dataset in `folder`; raises FileNotFoundError without one, StorageError for another artifact's."""
    manifest = commits.read_manifest(folder)
    facts = manifest["facts"]
    if "levels" not in facts or "preprocessing" not in facts:
        raise StorageError(f"{folder} must hold a code dataset of this version: encode again")
    shards = [Shard(**file) for file in manifest["files"] if "rows" in file]
    return CodeDataset(
        folder=folder,
        digest=manifest["digest"],
        version=facts["version"],
        shards=tuple(sorted(shards, key=lambda shard: (shard.first_key, shard.path))),
        files={
            file["path"]: commits.FileEntry(file["path"], file["size"], file["sha256"]) for file in manifest["files"]
        },
        facts=facts,
    )


def commit_dataset(
    folder: str,
    schema: CodeSchema,
    shards: Sequence[Shard],
    rejects: Sequence[Reject],
    snapshot: StoredSnapshot,
    tokenizer: TokenizerFiles,
    *,
    config: CodesConfig,
    before: CodeDataset | None,
) -> CodeDataset:
    """Write the manifest: from now on the dataset is `shards`. What neither it nor the one `before` lists is removed:
    who is reading the one before may finish.

    Raises ValueError unless shards and rejects make up the snapshot.
    """
    held = sum(shard.rows for shard in shards)
    require(
        held + len(rejects) == snapshot.rows,
        f"shards and rejects must make up the {snapshot.rows} rows of the snapshot, got {held} and {len(rejects)}: "
        "run the same command again",
    )
    require(len({shard.path for shard in shards}) == len(shards), "each shard must be committed once")
    rejected = parquet.to_bytes(rejects_table(rejects))
    objects.write_bytes(objects.join(folder, REJECTS_FILE), rejected)
    files = [*copy_tokenizer(folder, tokenizer), commits.file_entry(REJECTS_FILE, rejected), *shards]
    digest = commits.digest_of_files(files)
    known = before.version if before else 0
    splits: Counter[str] = Counter()
    for shard in shards:
        splits.update(shard.splits)
    facts = {
        "version": known if before and before.digest == digest else known + 1,
        "rows": held,
        "shards": len(shards),
        "splits": dict(splits),
        "rejects": len(rejects),
        "levels": [asdict(level) for level in schema.levels],
        "classes": list(snapshot.classes),
        "tokenizer": schema.tokenizer_digest,
        "tokenizer_model": tokenizer.model,
        "tokenizer_run": tokenizer.run_id,
        "preprocessing": schema.preprocessing,
        "snapshot": snapshot.digest,
        "snapshot_uri": objects.absolute(snapshot.folder),
        "settings": asdict(config),
    }
    commits.commit_artifact(folder, files, facts)
    _sweep(folder, {file.path for file in files} | (before.files.keys() if before else set()))
    return read_dataset(folder)


def _sweep(folder: str, keep: set[str]) -> None:
    for path in objects.object_sizes(folder):
        if path.startswith("part-") and path not in keep:
            objects.delete(objects.join(folder, path))


# --- what a job has done so far ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardResult:
    """The outcome of one shard's rows."""

    name: str
    shard: Shard | None
    """None: no row could be used."""
    rejects: tuple[Reject, ...] = ()

    def to_json(self) -> str:
        """One line; `from_json` reads it back equal."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "ShardResult":
        """Read what `to_json` wrote."""
        found = json.loads(text)
        shard = Shard(**found["shard"]) if found["shard"] else None
        return cls(found["name"], shard, tuple(Reject(*reject) for reject in found["rejects"]))


class JobRecord:
    """What was done in this folder and is in no manifest yet: a note a shard, gathered into one file a wave."""

    def __init__(self, folder: str) -> None:
        self._folder = objects.join(folder, commits.WORK_FOLDER)
        self._there = objects.object_sizes(folder)
        self._known: dict[str, ShardResult] = {}
        for path in objects.object_sizes(self._folder):
            if path.startswith(("waves/", "notes/")):
                lines = objects.read_bytes(objects.join(self._folder, path)).splitlines()
                self._known |= {done.name: done for done in map(ShardResult.from_json, lines)}

    def find(self, name: str) -> ShardResult | None:
        """The outcome of the shard asked for by `name`, if its file is there whole."""
        done = self._known.get(name)
        whole = done is not None and (done.shard is None or self._there.get(done.shard.path) == done.shard.size)
        return done if whole else None

    def close_wave(self, number: int, outcomes: Sequence[ShardResult]) -> None:
        """Commit a wave: from now on it is known as a whole, and the notes of its shards are not needed."""
        lines = "\n".join(done.to_json() for done in outcomes)
        objects.write_bytes(objects.join(self._folder, "waves", f"{number:08}.jsonl"), lines.encode())
        objects.delete(objects.join(self._folder, "notes"))

    def clear(self) -> None:
        """Forget it all: a manifest holds it."""
        objects.delete(self._folder)


def record_shard(folder: str, done: ShardResult) -> None:
    """A worker's word that a shard is written: kept until its wave is."""
    objects.write_bytes(
        objects.join(folder, commits.WORK_FOLDER, "notes", f"{done.name}.json"), done.to_json().encode()
    )

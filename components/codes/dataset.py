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

from components import parquet, storage
from components.codes.config import CodesConfig
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard
from components.config import require
from components.images.manifest import SnapshotFile
from components.images.rejects import REJECTS, Reject, to_table
from components.weights import CONFIG, TENSORS

TOKENIZER = "tokenizer"
LEASE = ".lease"


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
    names = (CONFIG, TENSORS)
    missing = [name for name in names if not (folder / name).is_file()]
    require(not missing, f"a tokenizer's folder must hold {' and '.join(names)}, {folder} has no {missing}")
    return storage.digest_of_files([storage.entry(name, (folder / name).read_bytes()) for name in names])


def keep_tokenizer(folder: str, tokenizer: TokenizerFiles) -> list[storage.FileEntry]:
    """Copy the tokenizer into the dataset: workers load it from there, and codes can be decoded for ever."""
    entries = []
    for name in (CONFIG, TENSORS):
        data = (tokenizer.folder / name).read_bytes()
        path = f"{TOKENIZER}/{name}"
        entries.append(storage.entry(path, data))
        storage.write_bytes(storage.join(folder, path), data)
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
    files: Mapping[str, storage.FileEntry]
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
    def bytes_an_image(self) -> float:
        """Of the shards alone."""
        return sum(shard.size for shard in self.shards) / max(1, self.facts["rows"])


def _usage(used: Sequence[str], level: CodeLevel) -> float:
    seen = np.zeros(-(-level.codebook_size // 8), np.uint8)
    for bits in used:
        seen |= np.frombuffer(bytes.fromhex(bits), np.uint8)
    return float(np.unpackbits(seen).sum() / level.codebook_size)


def read_dataset(folder: str) -> CodeDataset:
    """The committed dataset in `folder`; raises FileNotFoundError without one, StorageError for another artifact's."""
    manifest = storage.read_manifest(folder)
    facts = manifest["facts"]
    if "levels" not in facts or "preprocessing" not in facts:
        raise storage.StorageError(f"{folder} must hold a code dataset of this version: encode again")
    shards = [Shard(**file) for file in manifest["files"] if "rows" in file]
    return CodeDataset(
        folder=folder,
        digest=manifest["digest"],
        version=facts["version"],
        shards=tuple(sorted(shards, key=lambda shard: (shard.first_key, shard.path))),
        files={
            file["path"]: storage.FileEntry(file["path"], file["size"], file["sha256"]) for file in manifest["files"]
        },
        facts=facts,
    )


def commit_dataset(
    folder: str,
    schema: CodeSchema,
    shards: Sequence[Shard],
    rejects: Sequence[Reject],
    snapshot: SnapshotFile,
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
    rejected = parquet.to_bytes(to_table(rejects))
    storage.write_bytes(storage.join(folder, REJECTS), rejected)
    files = [*keep_tokenizer(folder, tokenizer), storage.entry(REJECTS, rejected), *shards]
    digest = storage.digest_of_files(files)
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
        "snapshot_uri": storage.absolute(snapshot.folder),
        "settings": asdict(config),
    }
    storage.commit(folder, files, facts)
    _sweep(folder, {file.path for file in files} | (before.files.keys() if before else set()))
    return read_dataset(folder)


def _sweep(folder: str, keep: set[str]) -> None:
    for path in storage.sizes(folder):
        if path.startswith("part-") and path not in keep:
            storage.delete(storage.join(folder, path))


# --- what a job has done so far ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    """The outcome of one shard's rows."""

    name: str
    shard: Shard | None
    """None: no row could be used."""
    rejects: tuple[Reject, ...] = ()

    def to_json(self) -> str:
        """One line; `from_json` reads it back equal."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Done":
        """Read what `to_json` wrote."""
        found = json.loads(text)
        shard = Shard(**found["shard"]) if found["shard"] else None
        return cls(found["name"], shard, tuple(Reject(*reject) for reject in found["rejects"]))


class Record:
    """What was done in this folder and is in no manifest yet: a note a shard, gathered into one file a wave."""

    def __init__(self, folder: str) -> None:
        self._folder = storage.join(folder, storage.WORK)
        self._there = storage.sizes(folder)
        self._known: dict[str, Done] = {}
        for path in storage.sizes(self._folder):
            if path.startswith(("waves/", "notes/")):
                lines = storage.read_bytes(storage.join(self._folder, path)).splitlines()
                self._known |= {done.name: done for done in map(Done.from_json, lines)}

    def find(self, name: str) -> Done | None:
        """The outcome of the shard asked for by `name`, if its file is there whole."""
        done = self._known.get(name)
        whole = done is not None and (done.shard is None or self._there.get(done.shard.path) == done.shard.size)
        return done if whole else None

    def close_wave(self, number: int, outcomes: Sequence[Done]) -> None:
        """Commit a wave: from now on it is known as a whole, and the notes of its shards are not needed."""
        lines = "\n".join(done.to_json() for done in outcomes)
        storage.write_bytes(storage.join(self._folder, "waves", f"{number:08}.jsonl"), lines.encode())
        storage.delete(storage.join(self._folder, "notes"))

    def clear(self) -> None:
        """Forget it all: a manifest holds it."""
        storage.delete(self._folder)


def note(folder: str, done: Done) -> None:
    """A worker's word that a shard is written: kept until its wave is."""
    storage.write_bytes(storage.join(folder, storage.WORK, "notes", f"{done.name}.json"), done.to_json().encode())

"""A code dataset: the files in its folder, and the manifest that commits them.

<output>/<tokenizer digest>/
    manifests/<number>.json                 written last: lists the files below; the highest number counts
    <attempt>/part-<rows>-<content>.parquet shards
    <attempt>/rejects.parquet               images that could not be used
    <attempt>/tokenizer/                    the model that made the codes, and that decodes them
    .work/                                  what a job has done so far (job_record.py)
    .lease/                                 which process writes here
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from components.codes.config import CodesConfig
from components.codes.facts import DatasetFacts
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard
from components.config import require
from components.errors import StorageError
from components.images.rejects import REJECTS_FILE, Reject, rejects_table
from components.images.snapshot import StoredSnapshot
from components.store import commits, objects, parquet
from components.store.weights import CONFIG_FILE, WEIGHTS_FILE

TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer on this machine's disk, and where it came from."""

    folder: Path
    digest: str
    model: str | None = None
    """Its version in the registry, models:/<name>/<version>; None when it is not registered."""
    run_id: str | None = None
    """MLflow run that fitted it; None: unknown."""


def tokenizer_digest(folder: Path) -> str:
    """Digest of the tokenizer stored in `folder`: equal to its artifact's, wherever the two files are copied to.

    Raises ValueError when one of the files is missing.
    """
    names = (CONFIG_FILE, WEIGHTS_FILE)
    missing = [name for name in names if not (folder / name).is_file()]
    require(not missing, f"a tokenizer's folder must hold {' and '.join(names)}, {folder} has no {missing}")
    return commits.digest_of_files([commits.file_entry(name, (folder / name).read_bytes()) for name in names])


def copy_tokenizer(folder: str, attempt: str, tokenizer: TokenizerFiles) -> list[commits.FileEntry]:
    """Copy the tokenizer into the dataset, where encoders load it and readers of the codes can decode them."""
    return [
        commits.store_file(folder, f"{attempt}/{TOKENIZER_FOLDER}/{name}", (tokenizer.folder / name).read_bytes())
        for name in (CONFIG_FILE, WEIGHTS_FILE)
    ]


@dataclass(frozen=True)
class CodeDataset:
    """A committed dataset, as its manifest describes it."""

    folder: str
    digest: str
    shards: tuple[Shard, ...]
    """By rising first key."""
    files: Mapping[str, commits.FileEntry]
    """All files by path, shards included."""
    facts: DatasetFacts

    @property
    def schema(self) -> CodeSchema:
        """Levels, tokenizer and preprocessing: the same in all its shards."""
        levels = tuple(CodeLevel(**level) for level in self.facts.levels)
        return CodeSchema(levels=levels, tokenizer_digest=self.facts.tokenizer, preprocessing=self.facts.preprocessing)

    def usage(self) -> dict[str, float]:
        """Fraction of each level's codebook that training rows use, by level."""
        return {
            level.name: _usage([shard.used[level.name] for shard in self.shards], level) for level in self.schema.levels
        }

    def float32_agreement(self) -> dict[str, float]:
        """As in its facts, top first; JSON sorts by name."""
        measured = self.facts.float32_agreement
        return {level.name: measured[level.name] for level in self.schema.levels if level.name in measured}

    def uri_of(self, name: str) -> str:
        """Where the file, or the folder, that is called `name` lies; raises StorageError when there is none."""
        for path in self.files:
            attempt, called = commits.attempt_of(path), commits.name_of(path)
            if called == name or called.startswith(f"{name}/"):
                return objects.join(self.folder, attempt, name)
        raise StorageError(f"{self.folder} must hold {name}, its manifest does not list it: encode again")

    @property
    def bytes_per_image(self) -> float:
        """Bytes of the shards, divided by the rows."""
        return sum(shard.size for shard in self.shards) / max(1, self.facts.rows)


def _usage(used_per_shard: Sequence[str], level: CodeLevel) -> float:
    """Fraction of the codebook that the shards use together; `used_per_shard` as in Shard.used, one bit per code."""
    used = np.zeros(-(-level.codebook_size // 8), np.uint8)  # (ceil(codes / 8),)
    for hex_bits in used_per_shard:
        used |= np.frombuffer(bytes.fromhex(hex_bits), np.uint8)
    return float(np.unpackbits(used).sum() / level.codebook_size)


def read_dataset(folder: str) -> CodeDataset:
    """The committed dataset in `folder`; raises FileNotFoundError without one, StorageError for another artifact."""
    manifest = commits.read_manifest(folder)
    try:
        facts = DatasetFacts.read(manifest["facts"])
    except ValueError as error:
        raise StorageError(f"{folder} must hold a code dataset of this version: encode again") from error
    shards = [Shard(**file) for file in manifest["files"] if "rows" in file]
    return CodeDataset(
        folder=folder,
        digest=manifest["digest"],
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
    attempt: str,
    base: int | None = None,
    config: CodesConfig,
    previous: CodeDataset | None,
    agreement: Mapping[str, float] = MappingProxyType({}),
) -> CodeDataset:
    """Commit `shards` as the dataset in `folder` by creating the manifest after number `base`.

    Old files that no manifest lists are removed. Raises ValueError unless shards and rejects make up the snapshot,
    CommitConflict when another run has committed since.
    """
    rows = sum(shard.rows for shard in shards)
    require(
        rows + len(rejects) == snapshot.rows,
        f"shards and rejects must make up the {snapshot.rows} rows of the snapshot, got {rows} and {len(rejects)}: "
        "run the same command again",
    )
    require(len({shard.path for shard in shards}) == len(shards), "each shard must be committed once")
    rejects_data = parquet.to_bytes(rejects_table(rejects))
    rejects_entry = commits.store_file(folder, f"{attempt}/{REJECTS_FILE}", rejects_data)
    files = [*copy_tokenizer(folder, attempt, tokenizer), rejects_entry, *shards]
    facts = DatasetFacts(
        version=_next_version(previous, commits.digest_of_files(files)),
        rows=rows,
        shards=len(shards),
        splits=_rows_by_split(shards),
        rejects=len(rejects),
        levels=tuple(asdict(level) for level in schema.levels),
        classes=tuple(snapshot.classes),
        image_size=snapshot.pixels.image_size,
        channels=snapshot.pixels.channels,
        tokenizer=schema.tokenizer_digest,
        tokenizer_model=tokenizer.model,
        tokenizer_run=tokenizer.run_id,
        preprocessing=schema.preprocessing,
        snapshot=snapshot.digest,
        snapshot_uri=objects.absolute(snapshot.folder),
        settings=asdict(config),
        float32_agreement=dict(agreement),
    )
    commits.commit_artifact(folder, files, facts.record(), attempt=attempt, base=base)
    return read_dataset(folder)


def _next_version(previous: CodeDataset | None, digest: str) -> int:
    if previous is None:
        return 1
    # A commit that changes nothing keeps the version.
    return previous.facts.version if previous.digest == digest else previous.facts.version + 1


def _rows_by_split(shards: Sequence[Shard]) -> dict[str, int]:
    rows: Counter[str] = Counter()
    for shard in shards:
        rows.update(shard.splits)
    return dict(rows)

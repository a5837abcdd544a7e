"""Algorithm 2, lines 1-6, on Ray: encode the FULL snapshot to Parquet shards.

The driver walks through the snapshot a wave of rows at a time and hands lists of rows to encoders, actors that live as
long as the job. Each holds the tokenizer, lets Ray tasks (or a thread of its own) read and decode the batches ahead,
and writes a shard. Pixels never pass through the driver; it hears of each shard in a line, and waits for the slowest.
"""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from components import parquet, storage
from components.cluster.step import Cluster
from components.codes.config import CodesConfig
from components.codes.dataset import (
    TOKENIZER,
    CodeDataset,
    Done,
    Record,
    TokenizerFiles,
    commit_dataset,
    keep_tokenizer,
    note,
    read_dataset,
)
from components.codes.encoding import Encoding
from components.codes.plan import SPLITS, Encode, Ledger, Rewrite, Wave, plan
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard, build_shard, rewritten, write_shard
from components.config import Share, require
from components.images.config import ImagesConfig
from components.images.manifest import SnapshotFile, open_snapshot
from components.images.pixels import PixelReader, Refused
from components.images.rejects import Reject, check_share
from components.lease import Lease
from components.weights import describe_tokenizer, load_tokenizer
from components.workspace import Outcome, Workspace

AT_ONCE = 2
"""Shards an encoder works on: while one is written, the next is read and encoded."""
READER_CPUS = 0.5
"""Share of a CPU that a decoding task asks for: its answer waits for the encoder more than it works."""
LOOK_EVERY = 0.5
"""Seconds between two looks at what the encoders say."""
RESTARTS = 20
"""Times a lost encoder is started again before the job gives up."""


def encode(
    config: CodesConfig,
    snapshot_uri: str,
    tokenizer: TokenizerFiles,
    *,
    max_rejects: float,
    share: Share,
    cluster: Cluster,
    workspace: Workspace,
    distrusted: frozenset[str] = frozenset(),
) -> Outcome:
    """Make the dataset in the workspace's folder that of the snapshot `snapshot_uri`, encoding what is not there yet.

    Shards of an earlier commit are used as far as they hold images of this snapshot in the version that it lists,
    except those `distrusted` by path. Raises TooManyRejects when more than a share `max_rejects` cannot be used.
    """
    snapshot = open_snapshot(snapshot_uri)
    schema = _schema(tokenizer, snapshot)
    before = _before(workspace.uri)
    record = Record(workspace.uri)
    if before is None or before.facts["tokenizer"] != tokenizer.digest:
        keep_tokenizer(workspace.uri, tokenizer)  # the encoders load it from there
    usable = _usable(before, schema, workspace.uri, distrusted)
    waves = plan(
        snapshot,
        schema,
        Ledger(workspace.uri, schema, usable),
        a_wave=config.rows_a_wave,
        a_shard=config.rows_a_shard,
    )
    job = _Job(config, snapshot, schema, share, cluster, workspace)
    shards, rejects = job.run(waves, record, max_rejects)
    workspace.lease.check()
    dataset = commit_dataset(workspace.uri, schema, shards, rejects, snapshot, tokenizer, config=config, before=before)
    record.clear()
    return Outcome(digest=dataset.digest, facts=_facts(dataset))


def _schema(tokenizer: TokenizerFiles, snapshot: SnapshotFile) -> CodeSchema:
    described = describe_tokenizer(tokenizer.folder)
    fitted, given = (described.image_size, described.channels), (snapshot.settings.image_size, snapshot.settings.channels)
    require(
        fitted == given,
        f"images must have the size and channels that the tokenizer was fitted to, {fitted}, the snapshot "
        f"{snapshot.folder} has {given}: take another snapshot",
    )
    levels = tuple(
        CodeLevel(
            name=level.name,
            height=described.image_size // level.stride,
            width=described.image_size // level.stride,
            codebook_size=level.codebook_size,
        )
        for level in described.settings.levels
    )
    return CodeSchema(levels=levels, tokenizer_digest=tokenizer.digest, preprocessing=snapshot.preprocessing)


def _before(folder: str) -> CodeDataset | None:
    try:
        return read_dataset(folder)
    except FileNotFoundError:
        return None


def _usable(
    before: CodeDataset | None, schema: CodeSchema, folder: str, distrusted: frozenset[str]
) -> list[Shard]:
    """Shards of the earlier commit that are there, whole, and hold codes of this tokenizer and these pixels."""
    if before is None or before.schema != schema:
        return []
    there = storage.sizes(folder)
    return [shard for shard in before.shards if there.get(shard.path) == shard.size and shard.path not in distrusted]


def _facts(dataset: CodeDataset) -> dict[str, Any]:
    facts = dataset.facts
    return {
        "rows": facts["rows"],
        "shards": facts["shards"],
        "rejects": facts["rejects"],
        "version": facts["version"],
        "train_rows": facts["splits"].get(SPLITS[0], 0),
        "held_out_rows": facts["splits"].get(SPLITS[1], 0),
        "bytes": sum(shard.size for shard in dataset.shards),
        "bytes_an_image": dataset.bytes_an_image,
        **{f"usage_{name}": used for name, used in dataset.usage().items()},
    }


# --- the driver -------------------------------------------------------------------------------------------------------


class _Job:
    """Waves in, outcomes out."""

    def __init__(
        self,
        config: CodesConfig,
        snapshot: SnapshotFile,
        schema: CodeSchema,
        share: Share,
        cluster: Cluster,
        workspace: Workspace,
    ) -> None:
        self._config, self._snapshot, self._share = config, snapshot, share
        self._cluster, self._workspace = cluster, workspace
        self._settings = EncoderSettings(
            folder=workspace.uri,
            schema=schema,
            images=snapshot.settings,
            seed=snapshot.seed,
            batch_size=config.batch_size,
            precision=config.precision,
            share=share,
            lease=workspace.lease,
            board=cluster.board,
            job=workspace.name,
        )
        self._encoders: list[Any] = []
        self._telling = _Telling(workspace, snapshot.rows)

    def run(self, waves: Iterator[Wave], record: Record, max_rejects: float) -> tuple[list[Shard], list[Reject]]:
        """All shards and rejects of the dataset; each wave is recorded as it ends."""
        shards: list[Shard] = []
        rejects: list[Reject] = []
        try:
            for wave in waves:
                found = [done for one in (*wave.encode, *wave.rewrite) if (done := record.find(one.name))]
                known = {done.name for done in found}
                asked = [one for one in (*wave.encode, *wave.rewrite) if one.name not in known]
                self._telling.start_wave(wave, found)
                made = list(self._work(asked)) if asked else []
                if made:
                    self._workspace.lease.check()
                    record.close_wave(wave.number, [*found, *made])
                shards += [*wave.keep, *(done.shard for done in (*found, *made) if done.shard)]
                rejects += [reject for done in (*found, *made) for reject in done.rejects]
                check_share(rejects, self._snapshot.rows, max_rejects)
        finally:
            self._telling.finish()
            for encoder in self._encoders:
                ray.kill(encoder)
        return shards, rejects

    def _work(self, asked: Sequence[Encode | Rewrite]) -> Iterator[Done]:
        """The outcome of each of `asked`, in any order."""
        with self._cluster.share("codes", self._share):
            while len(self._encoders) < min(self._share.workers, len(asked)):
                self._encoders.append(self._encoder())
            free = deque(self._encoders * AT_ONCE)
            running: dict[Any, Any] = {}
            left = deque(asked)
            while left or running:
                while left and free:
                    encoder = free.popleft()
                    running[encoder.make.remote(left.popleft())] = encoder
                ready, _ = ray.wait(list(running), timeout=LOOK_EVERY)
                self._telling.listen(ray.get(self._cluster.board.take.remote(self._workspace.name)))
                for reference in ready:
                    free.append(running.pop(reference))
                    done = Done.from_json(_result(reference))
                    self._telling.done(done)
                    yield done

    def _encoder(self) -> Any:
        return (
            ray.remote(Encoder)
            .options(
                num_cpus=self._share.cpus,
                num_gpus=self._share.gpus or None,
                max_concurrency=AT_ONCE,
                max_restarts=RESTARTS,
                max_task_retries=RESTARTS,
            )
            .remote(self._settings)
        )


def _result(reference: Any) -> Any:
    """What an encoder gives, or its own error instead of Ray's wrapping of it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


class _Telling:
    """How far the job is, for a person and for the journal."""

    def __init__(self, workspace: Workspace, total: int) -> None:
        self._workspace, self._total = workspace, total
        self._passed = self._found = self._made = self._rejects = self._bytes = 0
        self._under_way: dict[str, int] = {}
        self._written: set[str] = set()
        self._started = time.monotonic()
        self._told = False

    def start_wave(self, wave: Wave, found: Sequence[Done]) -> None:
        """What the plan says is there already counts as done."""
        self._rejects += sum(len(done.rejects) for done in found)
        before = {done.name for done in found}
        asked = sum(one.rows.num_rows for one in wave.encode if one.name not in before)
        self._passed += wave.rows - asked

    def listen(self, notes: Sequence[tuple[str, int]]) -> None:
        """Notes of encoders: (shard, rows of it that are encoded)."""
        self._under_way |= {name: rows for name, rows in notes if name not in self._written}
        self._tell()

    def done(self, done: Done) -> None:
        """One shard is written."""
        self._under_way.pop(done.name, None)
        self._written.add(done.name)
        rows = (done.shard.rows if done.shard else 0) + len(done.rejects)
        self._made += rows
        self._rejects += len(done.rejects)
        self._bytes += done.shard.size if done.shard else 0
        figures = {"images_per_second": self._rate(), "bytes_written": float(self._bytes)}
        self._workspace.journal.metrics(self._passed + self._made, figures)
        self._tell()

    def finish(self) -> None:
        """Take the line away."""
        if self._told:
            self._workspace.progress.finish(self._workspace.name)

    def _rate(self) -> float:
        return (self._made + sum(self._under_way.values())) / max(time.monotonic() - self._started, 1e-9)

    def _tell(self) -> None:
        self._told = True
        self._workspace.progress.update(
            self._workspace.name,
            done=min(self._total, self._passed + self._made + sum(self._under_way.values())),
            total=self._total,
            unit="images",
            rate=self._rate(),
            note=f"{self._rejects} rejects, {self._bytes / 1e6:.1f} MB written",
        )


# --- in the encoders --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What an encoder needs to know: settings and URIs, never data."""

    folder: str
    schema: CodeSchema
    images: ImagesConfig
    seed: int
    batch_size: int
    precision: str
    share: Share
    lease: Lease
    board: Any
    job: str


class Encoder:
    """An actor: makes one shard a call, AT_ONCE calls at the same time."""

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        torch.set_num_threads(max(1, int(settings.share.cpus)))  # encoders side by side share the cores, not fight
        device = "cuda" if settings.share.gpus else "cpu"
        with TemporaryDirectory() as folder:
            storage.download(storage.join(settings.folder, TOKENIZER), Path(folder))
            model = load_tokenizer(Path(folder))
        self._encode = Encoding(model, batch_size=settings.batch_size, precision=settings.precision, device=device)

    def make(self, asked: Encode | Rewrite) -> str:
        """Write what is asked for; returns its outcome as JSON."""
        done = self._encoded(asked) if isinstance(asked, Encode) else self._rewritten(asked)
        note(self._settings.folder, done)
        return done.to_json()

    def _encoded(self, asked: Encode) -> Done:
        parts, kept, rejects, first = [], [], [], 0
        for pixels, refused in self._pixels(asked.rows):
            parts.append(self._encode(pixels))
            kept += [first + place for place in range(len(pixels)) if place not in refused]
            for place, why in refused.items():
                row = first + place
                rejects.append(Reject(asked.rows["key"][row].as_py(), asked.rows["uri"][row].as_py(), *why))
            first += len(pixels)
            self._settings.board.post.remote(self._settings.job, (asked.name, first))
        maps = [np.concatenate(level)[kept] for level in zip(*(maps for maps, _ in parts), strict=True)]
        errors = np.concatenate([errors for _, errors in parts])[kept]
        table = build_shard(self._settings.schema, asked.rows.take(pa.array(kept, pa.int64())), asked.versions[kept], maps, errors)
        return Done(asked.name, self._written(asked.name, table) if kept else None, tuple(rejects))

    def _rewritten(self, asked: Rewrite) -> Done:
        table = parquet.from_bytes(storage.read_listed(self._settings.folder, vars(asked.shard)))
        splits = [SPLITS[split] for split in asked.splits]
        return Done(asked.name, self._written(asked.name, rewritten(table, asked.places, asked.labels, splits)))

    def _written(self, name: str, table: pa.Table) -> Shard:
        self._settings.lease.check()
        return write_shard(self._settings.folder, name, table)

    def _pixels(self, rows: pa.Table) -> Iterator[tuple[np.ndarray, dict[int, Refused]]]:
        """Decoded batches in their order, some ahead of the one that is encoded."""
        size, readers = self._settings.batch_size, self._settings.share.readers
        batches = deque(rows.slice(start, size) for start in range(0, rows.num_rows, size))
        ahead: deque[Any] = deque()
        with ThreadPoolExecutor(1) as thread:
            reader = PixelReader(self._settings.images, self._settings.seed)
            while batches or ahead:
                while batches and len(ahead) <= max(1, readers):
                    batch = batches.popleft()
                    ahead.append(
                        _decode.remote(self._settings.images, self._settings.seed, batch)
                        if readers
                        else thread.submit(reader.read_usable, batch)
                    )
                first = ahead.popleft()
                yield _result(first) if readers else first.result()


@ray.remote(num_cpus=READER_CPUS)
def _decode(images: ImagesConfig, seed: int, rows: pa.Table) -> tuple[np.ndarray, dict[int, Refused]]:
    """One batch, decoded in a process of its own."""
    return PixelReader(images, seed).read_usable(rows)

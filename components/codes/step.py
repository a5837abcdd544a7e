"""Algorithm 2, lines 1-7: encode EVERY image of the snapshot into Parquet shards.

The driver takes the snapshot one wave of rows after another. For each wave it plans which shards to keep and which to
write, and gives the latter to encoders: a pool of Ray actors (worker_pool.py), or this process where there is no
cluster. An encoder holds the tokenizer, reads and decodes pixels itself, and writes the shard; only a ShardResult comes
back. Written shards and finished waves are recorded in the dataset's folder: the next job after a killed one plans with
them, whatever the images are by then.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from components.codes.agreement import float32_agreement
from components.codes.config import CodesConfig
from components.codes.dataset import CodeDataset, TokenizerFiles, commit_dataset, copy_tokenizer, read_dataset
from components.codes.facts import CodesFacts
from components.codes.job_record import JobRecord, ShardResult
from components.codes.plan import ShardLedger, ShardRequest, Wave, plan_waves, planned_ahead
from components.codes.progress import EncodeProgress
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.shard_encoder import EncodeSettings, InProcessEncoder
from components.codes.worker_pool import WorkerPool
from components.codes.writer import Shard
from components.config import StepResources, require
from components.images.rejects import Reject, check_reject_fraction
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.images.split import HELD_OUT, TEST, TRAIN
from components.store import leftovers, objects
from components.store.lease import Lease
from components.tokenizer.stored import describe_tokenizer
from components.workspace import StepOutput, Workspace


def encode_snapshot(
    config: CodesConfig,
    snapshot_uri: str,
    tokenizer: TokenizerFiles,
    *,
    max_rejects: float,
    resources: StepResources,
    workspace: Workspace,
    distrusted: frozenset[str] = frozenset(),
) -> StepOutput:
    """Bring the dataset in the workspace's folder up to date with a snapshot, encoding only what is missing.

    Rows of committed shards are reused if the snapshot lists their images in the same version, except in shards whose
    paths are `distrusted`. Raises TooManyRejects when more than the fraction `max_rejects` of the images cannot be
    used, LeaseLost when another run took over, TooFewResources when the cluster is too small.
    """
    snapshot = open_snapshot(snapshot_uri)
    schema = _schema(tokenizer, snapshot)
    previous = _previous_dataset(workspace.uri)
    record = JobRecord(workspace.uri, workspace.lease.attempt)
    recorded = [
        result
        for result in record.recorded_results()
        if result.schema == schema.digest and (result.shard is None or result.shard.path not in distrusted)
    ]
    copy_tokenizer(workspace.uri, workspace.lease.attempt, tokenizer)  # the encoders load it from there
    committed = _usable_shards(previous, schema, workspace.uri, distrusted)
    ledger = ShardLedger(workspace.uri, schema, committed, recorded)
    waves = plan_waves(
        snapshot, schema, ledger, rows_per_wave=config.rows_per_wave, rows_per_shard=config.rows_per_shard
    )
    progress = EncodeProgress(workspace, snapshot.rows)
    encoders = _encoders(config, snapshot, schema, resources, workspace, progress)
    job = _EncodeJob(record, encoders, progress, workspace.lease, max_rejects)
    job.run(waves)
    agreement = {}
    if config.precision != "float32":
        agreement = float32_agreement(workspace.uri, schema, job.shards, snapshot, tokenizer.folder)
    workspace.lease.check()
    dataset = commit_dataset(
        workspace.uri,
        schema,
        job.shards,
        job.rejects,
        snapshot,
        tokenizer,
        attempt=workspace.lease.attempt,
        base=workspace.base,
        config=config,
        previous=previous,
        agreement=agreement,
    )
    record.clear()
    leftovers.sweep(workspace.uri, workspace.lease.attempt)
    return StepOutput(digest=dataset.digest, facts=_facts(dataset, snapshot))


def _schema(tokenizer: TokenizerFiles, snapshot: StoredSnapshot) -> CodeSchema:
    described = describe_tokenizer(tokenizer.folder)
    fitted = (described.image_size, described.channels)
    offered = (snapshot.pixels.image_size, snapshot.pixels.channels)
    require(
        fitted == offered,
        f"images must have the size and channels that the tokenizer was fitted to, {fitted}, the snapshot "
        f"{snapshot.folder} has {offered}: take another snapshot",
    )
    levels = tuple(
        CodeLevel(
            name=level.name,
            height=described.image_size // level.stride,
            width=described.image_size // level.stride,
            codebook_size=level.codebook_size,
        )
        for level in described.architecture.levels
    )
    return CodeSchema(levels=levels, tokenizer_digest=tokenizer.digest, preprocessing=snapshot.preprocessing)


def _previous_dataset(folder: str) -> CodeDataset | None:
    try:
        return read_dataset(folder)
    except FileNotFoundError:
        return None


def _usable_shards(
    previous: CodeDataset | None, schema: CodeSchema, folder: str, distrusted: frozenset[str]
) -> list[Shard]:
    """Committed shards whose files have their full size, with codes of this tokenizer and these pixels."""
    if previous is None or previous.schema != schema:
        return []
    sizes = objects.object_sizes(folder)
    return [shard for shard in previous.shards if sizes.get(shard.path) == shard.size and shard.path not in distrusted]


def _facts(dataset: CodeDataset, snapshot: StoredSnapshot) -> CodesFacts:
    facts = dataset.facts
    return CodesFacts(
        rows=facts.rows,
        usage=dataset.usage(),
        classes=len(snapshot.classes),
        dimensions=snapshot.pixels.image_size**2 * snapshot.pixels.channels,
        shards=facts.shards,
        rejects=facts.rejects,
        version=facts.version,
        train_rows=facts.splits.get(TRAIN, 0),
        held_out_rows=facts.splits.get(HELD_OUT, 0),
        test_rows=facts.splits.get(TEST, 0),
        bytes=sum(shard.size for shard in dataset.shards),
        bytes_per_image=dataset.bytes_per_image,
        float32_agreement=dataset.float32_agreement(),
    )


# --- waves ------------------------------------------------------------------------------------------------------------


class _Encoders(Protocol):
    """Makes shards, on Ray or in this process."""

    def running(self) -> AbstractContextManager[None]:
        """Hold the encoders' resources while the body runs; afterwards no encoder is at work."""

    def submit(self, requests: Sequence[ShardRequest]) -> None:
        """Add shards to make."""

    @property
    def waiting(self) -> int:
        """Submitted requests that no encoder has begun."""

    def next_result(self) -> ShardResult:
        """Wait for one shard; they come in any order."""


@dataclass
class _UnfinishedWave:
    """A wave some of whose shards are not written yet."""

    number: int
    shards: int
    results: list[ShardResult] = field(default_factory=list)


class _EncodeJob:
    """Brings waves and encoders together, and collects shards and rejects."""

    def __init__(
        self, record: JobRecord, encoders: _Encoders, progress: EncodeProgress, lease: Lease, max_rejects: float
    ) -> None:
        self._record, self._encoders, self._progress, self._lease = record, encoders, progress, lease
        self._max_rejects = max_rejects
        self._wave_of: dict[str, _UnfinishedWave] = {}
        """Wave of each submitted shard that has no result yet, by the shard's name."""
        self.shards: list[Shard] = []
        self.rejects: list[Reject] = []

    def run(self, waves: Iterator[Wave]) -> None:
        """Work through all waves. The next one is taken up as soon as no request waits: no encoder idles between them.

        Raises TooManyRejects, LeaseLost, and the errors of planning and encoding.
        """
        with contextlib.ExitStack() as until_end:
            until_end.callback(self._progress.finish)
            planned = until_end.enter_context(contextlib.closing(planned_ahead(waves)))
            running = False
            for wave in planned:
                if wave.requests and not running:  # once per job: losing a node later must not fail it
                    until_end.enter_context(self._encoders.running())
                    running = True
                self._begin(wave)
                while self._encoders.waiting:
                    self._collect()
            while self._wave_of:
                self._collect()

    def _begin(self, wave: Wave) -> None:
        self._progress.start_wave(wave)
        self._add(wave.keep, wave.rejects)
        unfinished = _UnfinishedWave(wave.number, len(wave.requests))
        self._wave_of |= {request.name: unfinished for request in wave.requests}
        self._encoders.submit(wave.requests)

    def _collect(self) -> None:
        """Take one result. The last one of a wave records the wave as a whole."""
        result = self._encoders.next_result()
        self._progress.shard_written(result)
        wave = self._wave_of.pop(result.name)
        wave.results.append(result)
        if len(wave.results) == wave.shards:
            self._lease.check()
            self._record.close_wave(wave.number, wave.results)
            shards = [each.shard for each in wave.results if each.shard]
            self._add(shards, [row.reject for each in wave.results for row in each.rejected])

    def _add(self, shards: Sequence[Shard], rejects: Sequence[Reject]) -> None:
        self.shards += shards
        self.rejects += rejects
        check_reject_fraction(self.rejects, self._progress.total_rows, self._max_rejects)


def _encoders(
    config: CodesConfig,
    snapshot: StoredSnapshot,
    schema: CodeSchema,
    resources: StepResources,
    workspace: Workspace,
    progress: EncodeProgress,
) -> _Encoders:
    settings = EncodeSettings(
        folder=workspace.uri,
        schema=schema,
        pixels=snapshot.pixels,
        seed=snapshot.seed,
        batch_size=config.batch_size,
        precision=config.precision,
        resources=resources,
        lease=workspace.lease,
    )
    cluster = workspace.cluster
    if cluster is None:
        return InProcessEncoder(settings, progress.rows_encoded)
    return WorkerPool(settings, cluster, workspace.name, progress.rows_encoded)

"""Algorithm 2, lines 1-7: encode EVERY image of the snapshot into Parquet shards.

The driver takes the snapshot one wave of rows after another. For each wave it plans which shards to keep and which to
write, and gives the latter to encoders: a pool of Ray actors (worker.py), or this process where there is no cluster. An
encoder holds the tokenizer, reads and decodes pixels itself, and writes the shard; only a ShardResult comes back.
Written shards and finished waves are recorded in the dataset's folder, so that a killed job resumes.
"""

import contextlib
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import ray
import ray.data

from components.cluster.step import produce_while_listening, silence_ray_data
from components.codes.agreement import float32_agreement
from components.codes.config import CodesConfig
from components.codes.dataset import CodeDataset, TokenizerFiles, commit_dataset, copy_tokenizer, read_dataset
from components.codes.facts import CodesFacts
from components.codes.job_record import JobRecord, ShardResult
from components.codes.plan import ShardLedger, ShardRequest, Wave, plan_waves
from components.codes.progress import EncodeProgress
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.shard_encoder import EncodeSettings, InProcessEncoder
from components.codes.worker import EncodeWorker, WorkerSettings
from components.codes.writer import Shard
from components.config import StepResources, require
from components.images.rejects import Reject, check_reject_fraction
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.images.split import HELD_OUT, TEST, TRAIN
from components.store import commits, objects
from components.tokenizer.stored import describe_tokenizer
from components.workspace import ComputeCluster, StepOutput, Workspace

SHARDS_PER_ENCODER = 2
"""Shards an encoder works on at the same time: while one is written, the next is read and encoded."""
ENCODE_POLL_SECONDS = 0.5
"""Seconds between two reads of the encoders' messages."""
MAX_PASSES = 10
"""Passes per wave: each makes the shards that the pass before lost together with their encoders."""


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
    copy_tokenizer(workspace.uri, workspace.lease.attempt, tokenizer)  # the encoders load it from there
    ledger = ShardLedger(workspace.uri, schema, _usable_shards(previous, schema, workspace.uri, distrusted))
    waves = plan_waves(
        snapshot, schema, ledger, rows_per_wave=config.rows_per_wave, rows_per_shard=config.rows_per_shard
    )
    encoders = _encoders(config, snapshot, schema, resources, workspace)
    shards, rejects = _run_waves(waves, record, encoders, snapshot, workspace, max_rejects)
    agreement = {}
    if config.precision != "float32":
        agreement = float32_agreement(workspace.uri, schema, shards, snapshot, tokenizer.folder)
    workspace.lease.check()
    dataset = commit_dataset(
        workspace.uri,
        schema,
        shards,
        rejects,
        snapshot,
        tokenizer,
        attempt=workspace.lease.attempt,
        base=workspace.base,
        config=config,
        previous=previous,
        agreement=agreement,
    )
    record.clear()
    commits.sweep(workspace.uri, workspace.lease.attempt)
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

    def reserve(self) -> AbstractContextManager[None]:
        """Hold the encoders' resources, from the first shard to the end of the job."""

    def make_shards(self, requests: Sequence[ShardRequest], progress: EncodeProgress) -> Iterator[ShardResult]:
        """One result per request, in any order."""


def _run_waves(
    waves: Iterator[Wave],
    record: JobRecord,
    encoders: _Encoders,
    snapshot: StoredSnapshot,
    workspace: Workspace,
    max_rejects: float,
) -> tuple[list[Shard], list[Reject]]:
    """All shards and rejects of the dataset. Each wave is recorded as a whole once its last shard is written."""
    shards: list[Shard] = []
    rejects: list[Reject] = []
    progress = EncodeProgress(workspace, snapshot.rows)
    reserved = False
    with contextlib.ExitStack() as until_end:
        until_end.callback(progress.finish)
        for wave in waves:
            requests: list[ShardRequest] = [*wave.encode, *wave.rewrite]
            results = [result for request in requests if (result := record.find(request.name))]
            recorded_names = {result.name for result in results}
            missing = [request for request in requests if request.name not in recorded_names]
            progress.start_wave(wave, results)
            if missing and not reserved:  # once per job: losing a node later must not fail it
                until_end.enter_context(encoders.reserve())
                reserved = True
            if missing:
                for result in encoders.make_shards(missing, progress):
                    progress.shard_written(result)
                    results.append(result)
                workspace.lease.check()
                record.close_wave(wave.number, results)
            shards += [*wave.keep, *(result.shard for result in results if result.shard)]
            rejects += [reject for result in results for reject in result.rejects]
            check_reject_fraction(rejects, snapshot.rows, max_rejects)
    return shards, rejects


def _encoders(
    config: CodesConfig,
    snapshot: StoredSnapshot,
    schema: CodeSchema,
    resources: StepResources,
    workspace: Workspace,
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
    return InProcessEncoder(settings) if cluster is None else _RayEncoders(settings, cluster, workspace.name)


# --- on Ray -----------------------------------------------------------------------------------------------------------


class _RayEncoders:
    """A pool of actors for each wave."""

    def __init__(self, settings: EncodeSettings, cluster: ComputeCluster, name: str) -> None:
        self._resources, self._cluster = settings.resources, cluster
        job = f"{name} {uuid.uuid4().hex}"  # unique: late messages of a lost job's encoders are ignored
        self._settings = WorkerSettings(encoding=settings, mailbox=cluster.mailbox, job=job)

    def reserve(self) -> AbstractContextManager[None]:
        """Raises TooFewResources when the cluster is too small."""
        return self._cluster.reserve("codes", self._resources)

    def make_shards(self, requests: Sequence[ShardRequest], progress: EncodeProgress) -> Iterator[ShardResult]:
        """The result of each request, in any order; what was lost together with its encoder is made again.

        Raises an encoder's own error, or RuntimeError when encoders keep dying.
        """
        unmade = {request.name: request for request in requests}
        for _ in range(MAX_PASSES):
            for result in self._run_pipeline(list(unmade.values()), progress):
                del unmade[result.name]
                yield result
            if not unmade:
                return
        raise RuntimeError(
            f"every shard must be made, but {len(unmade)} of {len(requests)} were lost {MAX_PASSES} times with the "
            "encoder that had them: find out what kills encoders (memory?), then run again"
        )

    def _run_pipeline(self, requests: Sequence[ShardRequest], progress: EncodeProgress) -> Iterator[ShardResult]:
        """Results of one pass, as they come; those that were lost together with their encoders are left out."""
        pipeline = _pipeline(requests, self._settings)

        def produce() -> Iterator[ShardResult]:
            try:
                for row in pipeline.iter_rows():
                    yield ShardResult.from_json(row["result"])
            except ray.exceptions.RayActorError:
                return  # encoders were lost before they started: the next pass starts others

        yield from produce_while_listening(produce, lambda: self._listen(progress), ENCODE_POLL_SECONDS)

    def _listen(self, progress: EncodeProgress) -> None:
        messages = ray.get(self._cluster.mailbox.take.remote(self._settings.job))
        for message in messages:
            if isinstance(message, Exception):
                raise message
        for name, rows in messages:
            progress.rows_encoded(name, rows)
        progress.show()


def _pipeline(requests: Sequence[ShardRequest], settings: WorkerSettings) -> ray.data.Dataset:
    """Rows with the ShardResult, as JSON, of each request that was not lost with its encoder.

    Ray Data does not restart a lost encoder: its shards would wait until the cluster has room for it. They count as
    errored blocks instead and are left to the next pipeline, which takes as many encoders as fit by then.
    """
    silence_ray_data()
    resources = settings.encoding.resources
    workers = min(resources.workers, len(requests))  # more would have nothing to do
    # One block per request: it is the unit that Ray Data schedules and loses.
    numbers = ray.data.from_items(list(range(len(requests))), override_num_blocks=len(requests))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray warns of `max_restarts`, but offers no other way to set it
        pipeline = numbers.map_batches(
            EncodeWorker,
            batch_size=1,
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
            fn_constructor_args=(settings, [ray.put(request) for request in requests]),
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=workers,
                initial_size=workers,
                max_tasks_in_flight_per_actor=SHARDS_PER_ENCODER,
                max_concurrent_calls_per_actor=SHARDS_PER_ENCODER,
                enable_true_multi_threading=True,
            ),
            max_restarts=0,
        )
    pipeline.context.max_errored_blocks = -1  # unlimited: an encoder's own errors are raised by _listen
    pipeline.context.execution_options.preserve_order = False
    return pipeline

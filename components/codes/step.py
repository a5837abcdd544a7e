"""Algorithm 2, lines 1-6, on Ray Data: encode the FULL snapshot to Parquet shards.

The driver walks through the snapshot a wave of rows at a time. Each wave is one pipeline of Ray Data: what to make goes
in, a pool of encoders makes it, a line for each shard comes out. An encoder is an actor that holds the tokenizer, lets
Ray tasks (or a thread of its own) read and decode the batches ahead, and writes a shard; pixels never pass through the
driver.
"""

import contextlib
import queue
import threading
import uuid
import warnings
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
import ray.data
import torch

from components.cluster.step import Cluster, silence_ray_data
from components.codes.batch_encoder import BatchEncoder
from components.codes.config import CodesConfig
from components.codes.dataset import (
    TOKENIZER_FOLDER,
    CodeDataset,
    JobRecord,
    ShardResult,
    TokenizerFiles,
    commit_dataset,
    copy_tokenizer,
    read_dataset,
    record_shard,
)
from components.codes.plan import SPLITS, EncodeRequest, RewriteRequest, ShardLedger, Wave, plan_waves
from components.codes.progress import EncodeProgress
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import Shard, build_shard, rewrite_rows, write_shard
from components.config import StepResources, require
from components.images.config import ImagesConfig
from components.images.pixels import PixelReader, Refusal
from components.images.rejects import Reject, check_reject_fraction
from components.images.snapshot import StoredSnapshot, open_snapshot
from components.store import commits, objects, parquet
from components.store.lease import Lease
from components.store.weights import describe_tokenizer, load_tokenizer
from components.workspace import StepOutput, Workspace

SHARDS_PER_ENCODER = 2
"""Shards an encoder works on: while one is written, the next is read and encoded."""
READER_CPUS = 0.5
"""Share of a CPU that a decoding task asks for: its answer waits for the encoder more than it works."""
ENCODE_POLL_SECONDS = 0.5
"""Seconds between two looks at what the encoders say."""
MAX_PASSES = 10
"""Pipelines that a wave gets: after each, what encoders that died had is asked for again."""


def encode_snapshot(
    config: CodesConfig,
    snapshot_uri: str,
    tokenizer: TokenizerFiles,
    *,
    max_rejects: float,
    resources: StepResources,
    cluster: Cluster,
    workspace: Workspace,
    distrusted: frozenset[str] = frozenset(),
) -> StepOutput:
    """Make the dataset in the workspace's folder that of the snapshot `snapshot_uri`, encoding what is not there yet.

    Shards of an earlier commit are used as far as they hold images of this snapshot in the version that it lists,
    except those `distrusted` by path. Raises TooManyRejects when more than a share `max_rejects` cannot be used.
    """
    snapshot = open_snapshot(snapshot_uri)
    schema = _schema(tokenizer, snapshot)
    before = _before(workspace.uri)
    record = JobRecord(workspace.uri)
    if before is None or before.facts["tokenizer"] != tokenizer.digest:
        copy_tokenizer(workspace.uri, tokenizer)  # the encoders load it from there
    usable = _usable(before, schema, workspace.uri, distrusted)
    waves = plan_waves(
        snapshot,
        schema,
        ShardLedger(workspace.uri, schema, usable),
        rows_per_wave=config.rows_per_wave,
        rows_per_shard=config.rows_per_shard,
    )
    job = _Job(config, snapshot, schema, resources, cluster, workspace)
    shards, rejects = job.run(waves, record, max_rejects)
    workspace.lease.check()
    dataset = commit_dataset(workspace.uri, schema, shards, rejects, snapshot, tokenizer, config=config, before=before)
    record.clear()
    return StepOutput(digest=dataset.digest, facts=_facts(dataset))


def _schema(tokenizer: TokenizerFiles, snapshot: StoredSnapshot) -> CodeSchema:
    described = describe_tokenizer(tokenizer.folder)
    fitted, given = (
        (described.image_size, described.channels),
        (snapshot.settings.image_size, snapshot.settings.channels),
    )
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


def _usable(before: CodeDataset | None, schema: CodeSchema, folder: str, distrusted: frozenset[str]) -> list[Shard]:
    """Shards of the earlier commit that are there, whole, and hold codes of this tokenizer and these pixels."""
    if before is None or before.schema != schema:
        return []
    there = objects.object_sizes(folder)
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
        "bytes_per_image": dataset.bytes_per_image,
        **{f"usage_{name}": used for name, used in dataset.usage().items()},
    }


# --- the driver -------------------------------------------------------------------------------------------------------


class _Job:
    """Waves in, outcomes out."""

    def __init__(
        self,
        config: CodesConfig,
        snapshot: StoredSnapshot,
        schema: CodeSchema,
        resources: StepResources,
        cluster: Cluster,
        workspace: Workspace,
    ) -> None:
        self._config, self._snapshot, self._resources = config, snapshot, resources
        self._cluster, self._workspace = cluster, workspace
        self._settings = WorkerSettings(
            folder=workspace.uri,
            schema=schema,
            images=snapshot.settings,
            seed=snapshot.seed,
            batch_size=config.batch_size,
            precision=config.precision,
            resources=resources,
            lease=workspace.lease,
            mailbox=cluster.mailbox,
            job=f"{workspace.name} {uuid.uuid4().hex}",  # what a lost job's encoders say late is nobody's
        )
        self._telling = EncodeProgress(workspace, snapshot.rows)

    def run(self, waves: Iterator[Wave], record: JobRecord, max_rejects: float) -> tuple[list[Shard], list[Reject]]:
        """All shards and rejects of the dataset; each wave is recorded as it ends."""
        shards: list[Shard] = []
        rejects: list[Reject] = []
        begun = False
        with contextlib.ExitStack() as held:
            held.callback(self._telling.finish)
            for wave in waves:
                every: list[EncodeRequest | RewriteRequest] = [*wave.encode, *wave.rewrite]
                found = [done for one in every if (done := record.find(one.name))]
                known = {done.name for done in found}
                asked = [one for one in every if one.name not in known]
                self._telling.start_wave(wave, found)
                if asked and not begun:  # a node that is lost later is no reason to give up
                    held.enter_context(self._cluster.reserve("codes", self._resources))
                    begun = True
                made = list(self._work(asked)) if asked else []
                if made:
                    self._workspace.lease.check()
                    record.close_wave(wave.number, [*found, *made])
                shards += [*wave.keep, *(done.shard for done in (*found, *made) if done.shard)]
                rejects += [reject for done in (*found, *made) for reject in done.rejects]
                check_reject_fraction(rejects, self._snapshot.rows, max_rejects)
        return shards, rejects

    def _work(self, asked: Sequence[EncodeRequest | RewriteRequest]) -> Iterator[ShardResult]:
        """The outcome of each of `asked`, in any order; what a lost encoder had is asked for again."""
        left = {one.name: one for one in asked}
        for _ in range(MAX_PASSES):
            for done in self._answers(_pipeline(list(left.values()), self._settings)):
                self._telling.done(done)
                del left[done.name]
                yield done
            if not left:
                return
        raise RuntimeError(
            f"every shard must be made, but {len(left)} of {len(asked)} were lost {MAX_PASSES} times with the encoder "
            "that had them: look for what kills encoders (memory?), then run again"
        )

    def _answers(self, pipeline: ray.data.Dataset) -> Iterator[ShardResult]:
        """What comes out of the pipeline; meanwhile the encoders' notes are told. Raises an encoder's own error."""
        answers: queue.SimpleQueue[ShardResult | BaseException | None] = queue.SimpleQueue()

        def run() -> None:
            try:
                for row in pipeline.iter_rows():
                    answers.put(ShardResult.from_json(row["done"]))
                answers.put(None)
            except BaseException as error:
                answers.put(error)

        threading.Thread(target=run, daemon=True).start()
        while True:
            self._listen()
            try:
                answer = answers.get(timeout=ENCODE_POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(answer, ShardResult):
                yield answer
            else:
                self._listen()
                if answer is None or isinstance(answer, ray.exceptions.RayActorError):
                    return  # that error is of encoders that were lost before they began
                raise answer

    def _listen(self) -> None:
        notes = ray.get(self._cluster.mailbox.take.remote(self._settings.job))
        errors = [one for one in notes if isinstance(one, Exception)]
        if errors:
            raise errors[0]
        self._telling.listen(notes)


def _pipeline(asked: Sequence[EncodeRequest | RewriteRequest], settings: "WorkerSettings") -> ray.data.Dataset:
    """Rows with the outcome, as JSON, of each of `asked` that was not lost with its encoder.

    A lost encoder is not restarted in its place, where its shards would wait until the cluster has room for it: they
    count as errored blocks, and come out of the next pipeline.
    """
    silence_ray_data()
    resources, workers = settings.resources, min(settings.resources.workers, len(asked))
    numbers = ray.data.from_items(list(range(len(asked))), override_num_blocks=len(asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `max_restarts` has no other way in yet
        pipeline = numbers.map_batches(
            EncodeWorker,
            batch_size=1,
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
            fn_constructor_args=(settings, [ray.put(one) for one in asked]),
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
    pipeline.context.max_errored_blocks = -1  # an encoder's own errors are raised by _listen
    pipeline.context.execution_options.preserve_order = False
    return pipeline


def _result(reference: Any) -> Any:
    """What an encoder gives, or its own error instead of Ray's wrapping of it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


# --- in the encoders --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What an encoder needs to know: settings and URIs, never data."""

    folder: str
    schema: CodeSchema
    images: ImagesConfig
    seed: int
    batch_size: int
    precision: str
    resources: StepResources
    lease: Lease
    mailbox: Any
    job: str


class EncodeWorker:
    """An actor of the pool: makes one shard a call, AT_ONCE calls at the same time."""

    def __init__(self, settings: WorkerSettings, asked: Sequence[ray.ObjectRef]) -> None:
        """`asked` is what the wave asks for, by number."""
        self._settings, self._asked = settings, asked
        torch.set_num_threads(max(1, int(settings.resources.cpus)))  # encoders side by side share the cores, not fight
        device = "cuda" if settings.resources.gpus else "cpu"
        with self._errors_told(), TemporaryDirectory() as folder:
            objects.download(objects.join(settings.folder, TOKENIZER_FOLDER), Path(folder))
            model = load_tokenizer(Path(folder))
            self._encode = BatchEncoder(
                model, batch_size=settings.batch_size, precision=settings.precision, device=device
            )

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Write shard number `item`; the outcome as JSON."""
        with self._errors_told():
            asked = ray.get(self._asked[int(batch["item"][0])])
            done = self._encoded(asked) if isinstance(asked, EncodeRequest) else self._rewritten(asked)
            record_shard(self._settings.folder, done)
            return {"done": [done.to_json()]}

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        """An encoder's own error goes to the driver as it is: Ray Data would count it among those of lost encoders."""
        try:
            yield
        except Exception as error:
            ray.get(self._settings.mailbox.post.remote(self._settings.job, error))
            raise

    def _encoded(self, asked: EncodeRequest) -> ShardResult:
        parts, kept, rejects, first = [], [], [], 0
        for pixels, refused in self._pixels(asked.rows):
            parts.append(self._encode(pixels))
            kept += [first + place for place in range(len(pixels)) if place not in refused]
            for place, why in refused.items():
                row = first + place
                rejects.append(Reject(asked.rows["key"][row].as_py(), asked.rows["uri"][row].as_py(), *why))
            first += len(pixels)
            self._settings.mailbox.post.remote(self._settings.job, (asked.name, first))
        maps = [np.concatenate(level)[kept] for level in zip(*(maps for maps, _ in parts), strict=True)]
        errors = np.concatenate([errors for _, errors in parts])[kept]
        table = build_shard(
            self._settings.schema, asked.rows.take(pa.array(kept, pa.int64())), asked.versions[kept], maps, errors
        )
        return ShardResult(asked.name, self._written(asked.name, table) if kept else None, tuple(rejects))

    def _rewritten(self, asked: RewriteRequest) -> ShardResult:
        table = parquet.from_bytes(commits.read_verified(self._settings.folder, vars(asked.shard)))
        splits = [SPLITS[split] for split in asked.splits]
        return ShardResult(
            asked.name, self._written(asked.name, rewrite_rows(table, asked.places, asked.labels, splits))
        )

    def _written(self, name: str, table: pa.Table) -> Shard:
        self._settings.lease.check()
        return write_shard(self._settings.folder, name, table)

    def _pixels(self, rows: pa.Table) -> Iterator[tuple[np.ndarray, dict[int, Refusal]]]:
        """Decoded batches in their order, some ahead of the one that is encoded."""
        size, readers = self._settings.batch_size, self._settings.resources.readers
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
def _decode(images: ImagesConfig, seed: int, rows: pa.Table) -> tuple[np.ndarray, dict[int, Refusal]]:
    """One batch, decoded in a process of its own."""
    return PixelReader(images, seed).read_usable(rows)

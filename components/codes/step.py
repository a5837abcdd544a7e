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

from components import parquet, storage
from components.cluster.step import Cluster, quiet_data
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
from components.codes.telling import Telling
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
MOST_PASSES = 10
"""Pipelines that a wave gets: after each, what encoders that died had is asked for again."""


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
            job=f"{workspace.name} {uuid.uuid4().hex}",  # what a lost job's encoders say late is nobody's
        )
        self._telling = Telling(workspace, snapshot.rows)

    def run(self, waves: Iterator[Wave], record: Record, max_rejects: float) -> tuple[list[Shard], list[Reject]]:
        """All shards and rejects of the dataset; each wave is recorded as it ends."""
        shards: list[Shard] = []
        rejects: list[Reject] = []
        begun = False
        with contextlib.ExitStack() as held:
            held.callback(self._telling.finish)
            for wave in waves:
                every: list[Encode | Rewrite] = [*wave.encode, *wave.rewrite]
                found = [done for one in every if (done := record.find(one.name))]
                known = {done.name for done in found}
                asked = [one for one in every if one.name not in known]
                self._telling.start_wave(wave, found)
                if asked and not begun:  # a node that is lost later is no reason to give up
                    held.enter_context(self._cluster.share("codes", self._share))
                    begun = True
                made = list(self._work(asked)) if asked else []
                if made:
                    self._workspace.lease.check()
                    record.close_wave(wave.number, [*found, *made])
                shards += [*wave.keep, *(done.shard for done in (*found, *made) if done.shard)]
                rejects += [reject for done in (*found, *made) for reject in done.rejects]
                check_share(rejects, self._snapshot.rows, max_rejects)
        return shards, rejects

    def _work(self, asked: Sequence[Encode | Rewrite]) -> Iterator[Done]:
        """The outcome of each of `asked`, in any order; what a lost encoder had is asked for again."""
        left = {one.name: one for one in asked}
        for _ in range(MOST_PASSES):
            for done in self._answers(_pipeline(list(left.values()), self._settings)):
                self._telling.done(done)
                del left[done.name]
                yield done
            if not left:
                return
        raise RuntimeError(
            f"every shard must be made, but {len(left)} of {len(asked)} were lost {MOST_PASSES} times with the encoder "
            "that had them: look for what kills encoders (memory?), then run again"
        )

    def _answers(self, pipeline: ray.data.Dataset) -> Iterator[Done]:
        """What comes out of the pipeline; meanwhile the encoders' notes are told. Raises an encoder's own error."""
        answers: queue.SimpleQueue[Done | BaseException | None] = queue.SimpleQueue()

        def run() -> None:
            try:
                for row in pipeline.iter_rows():
                    answers.put(Done.from_json(row["done"]))
                answers.put(None)
            except BaseException as error:
                answers.put(error)

        threading.Thread(target=run, daemon=True).start()
        while True:
            self._listen()
            try:
                answer = answers.get(timeout=LOOK_EVERY)
            except queue.Empty:
                continue
            if isinstance(answer, Done):
                yield answer
            else:
                self._listen()
                if answer is None or isinstance(answer, ray.exceptions.RayActorError):
                    return  # that error is of encoders that were lost before they began
                raise answer

    def _listen(self) -> None:
        notes = ray.get(self._cluster.board.take.remote(self._settings.job))
        errors = [one for one in notes if isinstance(one, Exception)]
        if errors:
            raise errors[0]
        self._telling.listen(notes)


def _pipeline(asked: Sequence[Encode | Rewrite], settings: "EncoderSettings") -> ray.data.Dataset:
    """Rows with the outcome, as JSON, of each of `asked` that was not lost with its encoder.

    A lost encoder is not restarted in its place, where its shards would wait until the cluster has room for it: they
    count as errored blocks, and come out of the next pipeline.
    """
    quiet_data()
    share, workers = settings.share, min(settings.share.workers, len(asked))
    numbers = ray.data.from_items(list(range(len(asked))), override_num_blocks=len(asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `max_restarts` has no other way in yet
        pipeline = numbers.map_batches(
            Encoder,
            batch_size=1,
            num_cpus=share.cpus,
            num_gpus=share.gpus or None,
            fn_constructor_args=(settings, [ray.put(one) for one in asked]),
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=workers,
                initial_size=workers,
                max_tasks_in_flight_per_actor=AT_ONCE,
                max_concurrent_calls_per_actor=AT_ONCE,
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
    """An actor of the pool: makes one shard a call, AT_ONCE calls at the same time."""

    def __init__(self, settings: EncoderSettings, asked: Sequence[ray.ObjectRef]) -> None:
        """`asked` is what the wave asks for, by number."""
        self._settings, self._asked = settings, asked
        torch.set_num_threads(max(1, int(settings.share.cpus)))  # encoders side by side share the cores, not fight
        device = "cuda" if settings.share.gpus else "cpu"
        with self._errors_told(), TemporaryDirectory() as folder:
            storage.download(storage.join(settings.folder, TOKENIZER), Path(folder))
            model = load_tokenizer(Path(folder))
            self._encode = Encoding(model, batch_size=settings.batch_size, precision=settings.precision, device=device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Write shard number `item`; the outcome as JSON."""
        with self._errors_told():
            asked = ray.get(self._asked[int(batch["item"][0])])
            done = self._encoded(asked) if isinstance(asked, Encode) else self._rewritten(asked)
            note(self._settings.folder, done)
            return {"done": [done.to_json()]}

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        """An encoder's own error goes to the driver as it is: Ray Data would count it among those of lost encoders."""
        try:
            yield
        except Exception as error:
            ray.get(self._settings.board.post.remote(self._settings.job, error))
            raise

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
        table = build_shard(
            self._settings.schema, asked.rows.take(pa.array(kept, pa.int64())), asked.versions[kept], maps, errors
        )
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

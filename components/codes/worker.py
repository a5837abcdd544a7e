"""The encoders of an encode job on Ray: actors that make shards, and the tasks that decode for them."""

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
import torch

from components.codes.job_record import ShardResult
from components.codes.plan import ShardRequest
from components.codes.shard_encoder import (
    DecodedBatch,
    EncodeSettings,
    ShardEncoder,
    StartDecoding,
    decoding_thread,
)
from components.images.config import PixelConfig
from components.images.pixels import PixelReader

READER_CPUS = 0.5
"""CPUs that a decoding task requests: most of the time it waits for the encoder."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Everything that an actor needs."""

    encoding: EncodeSettings
    mailbox: Any
    job: str
    """Name under which the driver collects messages from the mailbox."""


class EncodeWorker:
    """An actor of the pool: makes one shard per call, several calls at the same time."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        torch.set_num_threads(settings.encoding.threads)

    def load(self) -> None:
        """Load the tokenizer: once, before shards. Not in the constructor, whose errors Ray reports as a lost actor."""
        self._encoder = ShardEncoder(self._settings.encoding)

    def make_shard(self, request: ShardRequest) -> ShardResult:
        """Make one shard; the driver gets the rows encoded so far through the mailbox."""
        with self._decoding() as start_decoding:
            return self._encoder.make_shard(request, start_decoding, self._report)

    def _report(self, name: str, rows: int) -> None:
        self._settings.mailbox.post.remote(self._settings.job, (name, rows))  # not awaited: progress may be late

    def _decoding(self) -> contextlib.AbstractContextManager[StartDecoding]:
        """Decode in Ray tasks, or in a thread of this process when there are no readers."""
        encoding = self._settings.encoding
        if not encoding.resources.readers:
            return decoding_thread(encoding)
        return contextlib.nullcontext(functools.partial(_start_task, encoding.pixels, encoding.seed))


def _start_task(pixels: PixelConfig, seed: int, rows: pa.Table) -> functools.partial[DecodedBatch]:
    return functools.partial(_task_result, _decode_batch.remote(pixels, seed, rows))


def _task_result(reference: Any) -> DecodedBatch:
    """The result of a decoding task; raises its own error, not Ray's wrapper."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


@ray.remote(num_cpus=READER_CPUS)
def _decode_batch(pixels: PixelConfig, seed: int, rows: pa.Table) -> DecodedBatch:
    """Decode one batch in another process."""
    return PixelReader(pixels, seed).read_usable(rows)

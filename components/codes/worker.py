"""The encoders of an encode job on Ray: actors that make shards, and the tasks that decode for them."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

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
"""CPUs that a decoding task requests: it waits for the encoder more than it works."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What an actor has to know."""

    encoding: EncodeSettings
    mailbox: Any
    job: str
    """Name under which the driver collects messages from the mailbox."""


class EncodeWorker:
    """An actor of the pool: makes one shard per call, several calls at the same time."""

    def __init__(self, settings: WorkerSettings, requests: Sequence[ray.ObjectRef]) -> None:
        """`requests` are those of one wave, by number."""
        self._settings, self._requests = settings, requests
        torch.set_num_threads(settings.encoding.threads)
        with self._errors_reported():
            self._encoder = ShardEncoder(settings.encoding)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Make the shard of request number `item`; gives its ShardResult as JSON."""
        with self._errors_reported(), self._decoding() as start_decoding:
            request = ray.get(self._requests[int(batch["item"][0])])
            return {"result": [self._encoder.make_shard(request, start_decoding, self._report).to_json()]}

    def _report(self, name: str, rows: int) -> None:
        self._settings.mailbox.post.remote(self._settings.job, (name, rows))

    @contextlib.contextmanager
    def _errors_reported(self) -> Iterator[None]:
        """Send an encoder's own error to the driver as it is: Ray Data would count it among those of lost encoders."""
        try:
            yield
        except Exception as error:
            ray.get(self._settings.mailbox.post.remote(self._settings.job, error))
            raise

    def _decoding(self) -> contextlib.AbstractContextManager[StartDecoding]:
        """Decodes in tasks of their own processes, or in a thread of this one where there are no readers."""
        encoding = self._settings.encoding
        if not encoding.resources.readers:
            return decoding_thread(encoding)
        return contextlib.nullcontext(functools.partial(_start_task, encoding.pixels, encoding.seed))


def _start_task(pixels: PixelConfig, seed: int, rows: pa.Table) -> functools.partial[DecodedBatch]:
    return functools.partial(_task_result, _decode_batch.remote(pixels, seed, rows))


def _task_result(reference: Any) -> DecodedBatch:
    """The result of a decoding task, or its own error instead of Ray's wrapping of it."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


@ray.remote(num_cpus=READER_CPUS)
def _decode_batch(pixels: PixelConfig, seed: int, rows: pa.Table) -> DecodedBatch:
    """One batch, decoded in a process of its own."""
    return PixelReader(pixels, seed).read_usable(rows)

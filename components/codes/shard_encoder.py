"""Carries out one request: encode images into a shard, or write a committed shard again.

Imports no Ray. The caller (an actor in worker.py, or InProcessEncoder in the driver's process) decides how pixels are
read and where progress goes; the written bytes are the same.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import torch

from components.codes.batch_encoder import BatchEncoder
from components.codes.dataset import TOKENIZER_FOLDER
from components.codes.job_record import RejectedRow, ShardResult, record_shard
from components.codes.plan import EncodeRequest, RewriteRequest, ShardRequest
from components.codes.schema import CodeSchema
from components.codes.writer import Shard, build_shard, rewrite_rows, write_shard
from components.config import StepResources
from components.images.config import PixelConfig
from components.images.pixels import PixelReader, Refusal
from components.images.rejects import Reject
from components.images.split import SPLITS
from components.stopping import check_stop
from components.store import commits, objects, parquet
from components.store.lease import Lease
from components.tokenizer.stored import load_tokenizer

DecodedBatch = tuple[np.ndarray, dict[int, Refusal]]
"""Pixels uint8 (n, height, width, c), and why some rows cannot be used, by row number: their pixels are black."""
StartDecoding = Callable[[pa.Table], Callable[[], DecodedBatch]]
"""Begins to decode a batch of rows and returns at once; what it returns waits for the pixels."""
ReportRows = Callable[[str, int], None]
"""Called with (shard, rows of it that are encoded so far)."""


@dataclass(frozen=True, kw_only=True)
class EncodeSettings:
    """Everything that an encoder needs: settings and URIs, never data."""

    folder: str
    """Folder of the dataset."""
    schema: CodeSchema
    pixels: PixelConfig
    seed: int
    """Seed of the augmented copies."""
    batch_size: int
    precision: str
    resources: StepResources
    lease: Lease

    @property
    def threads(self) -> int:
        """CPU threads per encoder, so that encoders on one machine do not compete for cores."""
        return max(1, int(self.resources.cpus))


class ShardEncoder:
    """Makes shards with the tokenizer in the dataset's folder. Threads may share it."""

    def __init__(self, settings: EncodeSettings) -> None:
        """Load the tokenizer; raises ValueError when its files cannot be read."""
        self._settings = settings
        with TemporaryDirectory() as folder:
            attempt = objects.join(settings.folder, settings.lease.attempt)
            objects.download(objects.join(attempt, TOKENIZER_FOLDER), Path(folder))
            self._encode_batch = BatchEncoder(
                load_tokenizer(Path(folder)),
                batch_size=settings.batch_size,
                precision=settings.precision,
                device="cuda" if settings.resources.gpus else "cpu",
            )

    def make_shard(self, request: ShardRequest, start_decoding: StartDecoding, report: ReportRows) -> ShardResult:
        """Write the shard that `request` names, and record it as written.

        Raises LeaseLost when another run took over, StorageError when images, shards or the store cannot be read.
        """
        self._settings.lease.check()
        if isinstance(request, EncodeRequest):
            result = self._encode(request, start_decoding, report)
        else:
            result = self._rewrite(request)
        record_shard(self._settings.folder, self._settings.lease.attempt, result)
        return result

    def _encode(self, request: EncodeRequest, start_decoding: StartDecoding, report: ReportRows) -> ShardResult:
        """Encode the rows of a request (n rows) batch by batch; those that cannot be used become rejects."""
        encoded: list[tuple[list[np.ndarray], np.ndarray]] = []
        usable_rows: list[int] = []
        rejected: list[RejectedRow] = []
        first_row = 0  # of the batch, within the request
        for pixels, refused in self._decoded_batches(request.rows, start_decoding):
            encoded.append(self._encode_batch(pixels))  # codes (b, h, w) per level and errors (b,), of refused rows too
            usable_rows += [first_row + number for number in range(len(pixels)) if number not in refused]
            rejected += [_rejected_row(request, first_row + number, refusal) for number, refusal in refused.items()]
            first_row += len(pixels)
            report(request.name, first_row)
        if not usable_rows:
            return self._result(request, None, rejected)
        levels = zip(*(codes for codes, _ in encoded), strict=True)
        maps = [np.concatenate(batches)[usable_rows] for batches in levels]  # (usable, h, w) per level
        errors = np.concatenate([errors for _, errors in encoded])[usable_rows]  # (usable,)
        rows = request.rows.take(pa.array(usable_rows, pa.int64()))
        table = build_shard(self._settings.schema, rows, request.versions[usable_rows], maps, errors)
        return self._result(request, self._write(request.name, table), rejected)

    def _rewrite(self, request: RewriteRequest) -> ShardResult:
        table = parquet.from_bytes(commits.read_verified(self._settings.folder, vars(request.shard)))
        splits = [SPLITS[split] for split in request.splits]
        table = rewrite_rows(table, request.row_numbers, request.labels, splits)
        return self._result(request, self._write(request.name, table))

    def _result(self, request: ShardRequest, shard: Shard | None, rejected: Sequence[RejectedRow] = ()) -> ShardResult:
        return ShardResult(request.name, self._settings.schema.digest, shard, tuple(rejected))

    def _write(self, name: str, table: pa.Table) -> Shard:
        self._settings.lease.check()
        return write_shard(self._settings.folder, self._settings.lease.attempt, name, table)

    def _decoded_batches(self, rows: pa.Table, start_decoding: StartDecoding) -> Iterator[DecodedBatch]:
        """Batches of `rows` in order. While one is encoded, one more per reader (at least one) is decoded."""
        size, ahead = self._settings.batch_size, max(1, self._settings.resources.readers)
        pending: deque[Callable[[], DecodedBatch]] = deque()
        for start in range(0, rows.num_rows, size):
            pending.append(start_decoding(rows.slice(start, size)))
            if len(pending) > ahead:
                yield pending.popleft()()  # waits for the oldest batch
        while pending:
            yield pending.popleft()()


def _rejected_row(request: EncodeRequest, number: int, refusal: Refusal) -> RejectedRow:
    row = request.rows.slice(number, 1).to_pylist()[0]
    return RejectedRow(row["id"], int(request.versions[number]), Reject(row["key"], row["uri"], *refusal))


@contextlib.contextmanager
def decoding_thread(settings: EncodeSettings) -> Iterator[StartDecoding]:
    """Decode batches in another thread of this process."""
    reader = PixelReader(settings.pixels, settings.seed)
    with ThreadPoolExecutor(1) as thread:
        yield lambda rows: thread.submit(reader.read_usable, rows).result


class InProcessEncoder:
    """Makes shards one after the other in this process, where there is no cluster."""

    def __init__(self, settings: EncodeSettings, report: ReportRows) -> None:
        self._settings, self._report = settings, report
        self._waiting: deque[ShardRequest] = deque()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Compute with as many threads as an encoder of a cluster: sums are then rounded in the same way."""
        threads_before = torch.get_num_threads()
        torch.set_num_threads(self._settings.threads)
        try:
            with decoding_thread(self._settings) as self._start_decoding:
                yield
        finally:
            torch.set_num_threads(threads_before)

    def submit(self, requests: Sequence[ShardRequest]) -> None:
        """Add requests."""
        self._waiting.extend(requests)

    @property
    def waiting(self) -> int:
        """Requests that are not begun."""
        return len(self._waiting)

    def next_result(self) -> ShardResult:
        """Make the next shard."""
        check_stop()
        return self._encoder.make_shard(self._waiting.popleft(), self._start_decoding, self._report)

    @functools.cached_property
    def _encoder(self) -> ShardEncoder:
        return ShardEncoder(self._settings)

"""The encode workers of one job: Ray actors that are started when there is work, and kept until the job ends.

Plain actors, not Ray Data: its sources are fixed when a pipeline starts, but requests are planned while shards are
made; a pipeline per wave would start, load and compile every encoder again. And its pool of actors stalls when its only
actor is killed (ray issue 62746), where this one starts another.
"""

import contextlib
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from components.cluster.listening import check_lost
from components.codes.job_record import ShardResult
from components.codes.plan import ShardRequest
from components.codes.shard_encoder import EncodeSettings, ReportRows
from components.codes.worker import EncodeWorker, WorkerSettings
from components.errors import StillWriting
from components.stopping import check_stop
from components.workspace import ComputeCluster

SHARDS_PER_WORKER = 2
"""Shards a worker makes at the same time: while one is written, the next is read and encoded."""
POLL_SECONDS = 0.5
"""Longest time between two reads of the workers' messages."""
MAX_LOSSES = 10
"""How often the same shard may be lost together with its worker."""
STOP_SECONDS = 10.0
"""Longest wait for killed workers to be gone."""


@dataclass(eq=False)
class _Worker:
    """One actor, and what it is doing."""

    actor: Any
    loading: ray.ObjectRef | None
    """Call that loads the tokenizer; None once it has returned."""
    shards: dict[ray.ObjectRef, ShardRequest] = field(default_factory=dict)
    """Calls that make shards."""

    def calls(self) -> list[ray.ObjectRef]:
        """Everything that it has not finished."""
        return [self.loading] if self.loading else list(self.shards)


class WorkerPool:
    """Makes shards on a cluster. A lost worker is replaced, and the shards that it was making are made again."""

    def __init__(self, settings: EncodeSettings, cluster: ComputeCluster, name: str, report: ReportRows) -> None:
        """`report` gets the rows encoded so far of each shard, in the driver."""
        self._resources, self._cluster, self._report = settings.resources, cluster, report
        self._job = f"{name} {uuid.uuid4().hex}"  # unique: late messages of a lost job's workers are ignored
        self._settings = WorkerSettings(encoding=settings, mailbox=cluster.mailbox, job=self._job)
        self._waiting: deque[ShardRequest] = deque()
        self._workers: list[_Worker] = []
        self._losses: Counter[str] = Counter()
        """Losses by the shard that was lost; under "" those of workers that were still loading."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Hold the workers' resources while the body runs; afterwards all of them are gone, and write no more.

        Raises TooFewResources when the cluster is too small.
        """
        with self._cluster.reserve("codes", self._resources):
            try:
                yield
            finally:
                self._stop()

    def submit(self, requests: Sequence[ShardRequest]) -> None:
        """Add requests."""
        self._waiting.extend(requests)
        self._assign()

    @property
    def waiting(self) -> int:
        """Requests that no worker has taken up."""
        return len(self._waiting)

    def next_result(self) -> ShardResult:
        """The next shard that is finished, in any order.

        Raises an encoder's own error, RuntimeError when workers keep dying, LeaseLost when another run took over, and
        KeyboardInterrupt when somebody asked to stop.
        """
        while True:
            check_stop()
            check_lost(self._settings.encoding.lease)
            self._assign()
            workers = {call: worker for worker in self._workers for call in worker.calls()}
            finished, _ = ray.wait(list(workers), num_returns=1, timeout=POLL_SECONDS)
            self._listen()
            for call in finished:
                result = self._collect(call, workers[call])
                if result is not None:
                    return result

    def _assign(self) -> None:
        """Give waiting requests to the workers with the fewest shards, and start workers for those that are left."""
        ready = [worker for worker in self._workers if worker.loading is None]
        while self._waiting and ready:
            worker = min(ready, key=lambda each: len(each.shards))
            if len(worker.shards) == SHARDS_PER_WORKER:
                break
            request = self._waiting.popleft()
            worker.shards[worker.actor.make_shard.remote(request)] = request
        unfinished = len(self._waiting) + sum(len(worker.shards) for worker in self._workers)
        while len(self._workers) < min(self._resources.workers, unfinished):  # more would have nothing to do
            self._workers.append(self._start())

    def _start(self) -> _Worker:
        actor_class: Any = ray.remote(EncodeWorker)
        actor = actor_class.options(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            max_concurrency=SHARDS_PER_WORKER,
            max_restarts=0,  # a restarted actor would have no tokenizer: `_lost` starts another
            scheduling_strategy="SPREAD",
        ).remote(self._settings)
        return _Worker(actor, actor.load.remote())

    def _collect(self, call: ray.ObjectRef, worker: _Worker) -> ShardResult | None:
        """The result of a finished call; None when it only loaded the tokenizer or its worker was lost."""
        try:
            result = ray.get(call)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from error
        except RayError:
            self._lost(worker)
            return None
        if call == worker.loading:
            worker.loading = None
            del self._losses[""]
            return None
        del worker.shards[call]
        return result

    def _lost(self, worker: _Worker) -> None:
        """Put the worker's requests back. `_assign` replaces it, as soon as the cluster has room."""
        self._workers.remove(worker)
        ray.kill(worker.actor)  # it may only have been out of reach
        self._waiting.extendleft(worker.shards.values())
        self._losses.update([request.name for request in worker.shards.values()] or [""])
        if self._losses[""] > MAX_LOSSES * self._resources.workers or any(
            self._losses[request.name] >= MAX_LOSSES for request in worker.shards.values()
        ):
            raise RuntimeError(
                f"every shard must be made, but workers were lost {MAX_LOSSES} times with the same shard or before "
                "they had begun: find out what kills them (memory?), then run again"
            )

    def _listen(self) -> None:
        for name, rows in ray.get(self._cluster.mailbox.take.remote(self._job)):
            self._report(name, rows)

    def _stop(self) -> None:
        """Kill all workers and wait until they are gone, so that none writes under a lease that is released next.

        Raises StillWriting when one does not end in time.
        """
        for worker in self._workers:
            ray.kill(worker.actor)
        calls = [call for worker in self._workers for call in worker.calls()]
        _, going_on = ray.wait(calls, num_returns=len(calls), timeout=STOP_SECONDS) if calls else ([], [])
        self._workers.clear()
        if going_on:
            raise StillWriting(
                f"killed encoders must be gone within {STOP_SECONDS:g} s, and are not: the lease stays theirs until "
                "they are; run again then"
            )

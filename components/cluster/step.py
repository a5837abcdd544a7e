"""Joining or starting Ray, reserving resources for a step, and listening to its workers."""

import contextlib
import logging
import os
import queue
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.autoscaler.sdk
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from components.cluster.temporary import ray_folder
from components.config import StepResources
from components.errors import ClusterUnreachable, TooFewResources
from components.store.objects import ACCESS_VARIABLES

DATA_CPUS = 1.0
"""CPUs that no step can reserve: trainers that hold all CPUs would leave none to the tasks that read their data."""
CONNECT_SECONDS = 5.0
"""Seconds in which the head must accept a connection: Ray itself retries for minutes."""
CAPACITY_POLL_SECONDS = 2.0
"""Seconds between two checks whether the cluster has grown."""
ROUNDING = 1e-9
"""Tolerance in sums of fractional CPUs."""

Produced = TypeVar("Produced")


class Mailbox:
    """Actor that holds workers' messages by job until the driver collects them."""

    def __init__(self) -> None:
        self._messages: dict[str, list[Any]] = {}

    def post(self, job: str, message: Any) -> None:
        """Add one message."""
        self._messages.setdefault(job, []).append(message)

    def take(self, job: str) -> list[Any]:
        """All messages of `job` since the last call, in order."""
        return self._messages.pop(job, [])


class Cluster:
    """The Ray cluster this driver works on. Make it in the main thread: Ray ends with the thread that started it."""

    def __init__(self, *, local_cpus: float, autoscale_seconds: float = 0.0) -> None:
        """Join the cluster that RAY_ADDRESS names, or start a local one with at least `local_cpus` logical CPUs.

        Args:
            local_cpus: logical CPUs that the largest set of simultaneous jobs needs; may exceed the cores.
            autoscale_seconds: how long to wait for an autoscaler to add what a step lacks; 0 fails at once.

        Raises ClusterUnreachable when RAY_ADDRESS names a cluster that does not answer.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
        self.local = not os.environ.get("RAY_ADDRESS")
        if self.local:
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # this machine is not preempted
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings are meant for cluster operators
        if ray.is_initialized():
            self.local = False  # it was started elsewhere and is not ended here
        elif self.local:
            _start_local(max(os.cpu_count() or 1, int(-(-local_cpus // 1))))  # rounded up
        else:
            _join()
        self._autoscale_seconds = autoscale_seconds
        self._released = threading.Condition()
        self._reserved = {"CPU": 0.0, "GPU": 0.0}
        # Beside the driver: on another node, the loss of that node would end the job.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        mailbox_actor: Any = ray.remote(num_cpus=0)(Mailbox)
        self.mailbox: Any = mailbox_actor.options(scheduling_strategy=here).remote()

    def describe(self) -> str:
        """One line with the cluster's address, nodes, CPUs and GPUs."""
        total = ray.cluster_resources()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        where = "local Ray" if self.local else f"Ray at {os.environ.get('RAY_ADDRESS', 'the running cluster')}"
        return f"{where}: {nodes} node(s), {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"

    @contextlib.contextmanager
    def reserve(self, what: str, resources: StepResources) -> Iterator[None]:
        """Hold `resources` while the body runs; waits until other jobs of this driver release theirs.

        Raises TooFewResources when the whole cluster, less the CPU kept for reading, is smaller than that.
        """
        need = {"CPU": resources.workers * resources.cpus, "GPU": resources.workers * resources.gpus}
        self._require_capacity(what, resources, need)
        with self._released:
            while not self._fits(need):
                self._released.wait(CAPACITY_POLL_SECONDS)  # the cluster may have grown meanwhile
            for name, amount in need.items():
                self._reserved[name] += amount
        try:
            yield
        finally:
            with self._released:
                for name, amount in need.items():
                    self._reserved[name] -= amount
                self._released.notify_all()

    def _capacity(self) -> dict[str, float]:
        total = ray.cluster_resources()
        return {"CPU": total.get("CPU", 0.0) - DATA_CPUS, "GPU": total.get("GPU", 0.0)}

    def _fits(self, need: dict[str, float]) -> bool:
        capacity = self._capacity()
        return all(self._reserved[name] + amount <= capacity[name] + ROUNDING for name, amount in need.items())

    def _require_capacity(self, what: str, resources: StepResources, need: dict[str, float]) -> None:
        """Raise TooFewResources unless the cluster is large enough, or becomes so within the autoscaler's time."""
        deadline = time.monotonic() + self._autoscale_seconds
        requested = False
        while any(amount > self._capacity()[name] + ROUNDING for name, amount in need.items()):
            if self._autoscale_seconds and not requested:
                requested = True  # a request stays in force: once is enough
                worker = {"CPU": resources.cpus} | ({"GPU": resources.gpus} if resources.gpus else {})
                ray.autoscaler.sdk.request_resources(bundles=[worker] * resources.workers + [{"CPU": DATA_CPUS}])
            if time.monotonic() > deadline:
                capacity = self._capacity()
                raise TooFewResources(
                    f"{what} needs {need['CPU'] + DATA_CPUS:g} CPUs ({DATA_CPUS:g} of them to read data) and "
                    f"{need['GPU']:g} GPUs, the cluster has {capacity['CPU'] + DATA_CPUS:g} CPUs and "
                    f"{capacity['GPU']:g} GPUs: add nodes, or lower resources.* in the config"
                )
            time.sleep(CAPACITY_POLL_SECONDS)


# --- listening --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    """Last item in the queue of a producing thread."""

    error: BaseException | None


def produce_while_listening(
    produce: Callable[[], Iterable[Produced]], listen: Callable[[], None], poll_seconds: float
) -> Iterator[Produced]:
    """Yield the results of `produce`, which runs in another thread, as soon as they are made.

    Meanwhile the calling thread calls `listen` at least every `poll_seconds`, and once more after the last result, so
    that no message of a worker is lost. An error of `listen` or of `produce` is raised here.
    """
    results: queue.SimpleQueue[Produced | _End] = queue.SimpleQueue()

    def run() -> None:
        try:
            for result in produce():
                results.put(result)
            results.put(_End(None))
        except BaseException as error:
            results.put(_End(error))

    threading.Thread(target=run, name="producer", daemon=True).start()
    while True:
        listen()
        try:
            result = results.get(timeout=poll_seconds)
        except queue.Empty:
            continue
        if not isinstance(result, _End):
            yield result
            continue
        listen()  # for messages posted just before the end
        if result.error is not None:
            raise result.error
        return


def silence_ray_data() -> None:
    """Configure Ray Data in this process: rows in order, only errors logged, no progress bars but the pipeline's."""
    import ray.data  # takes a second, which the mailbox's process need not spend

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


# --- starting and joining ---------------------------------------------------------------------------------------------


def _start_local(cpus: int) -> None:
    # Ray prints a warning at three times as many worker processes as this; its default is the number of cores.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(cpus))
    os.environ["RAY_TMPDIR"] = str(ray_folder())
    with _stderr_on_failure():
        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )


def _join() -> None:
    environment = {
        "py_modules": [str(Path(__file__).resolve().parents[1])],
        "excludes": ["__pycache__"],
        "worker_process_setup_hook": _copy_variables(ACCESS_VARIABLES),
    }
    with _connection_errors():
        ray.init(runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR)


def _copy_variables(names: Sequence[str]) -> Callable[[], None]:
    """Set-up hook of every worker: sets the driver's variables `names`, so that it reaches the same store.

    Unlike `env_vars` of a runtime environment, these values do not appear in Ray's dashboard and logs.
    """
    values = {name: os.environ[name] for name in names if name in os.environ}

    def set_variables() -> None:
        os.environ.update(values)

    return set_variables


@contextlib.contextmanager
def _stderr_on_failure() -> Iterator[None]:
    """Capture what Ray's C++ part writes to stderr, and show it only when the body fails."""
    sys.stderr.flush()
    original = os.dup(2)  # file descriptor 2, below sys.stderr: C++ writes there directly
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(original, captured.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    address = os.environ["RAY_ADDRESS"]
    if address.startswith("ray://"):
        raise ClusterUnreachable(
            f"RAY_ADDRESS must be a cluster's host:port or 'auto', got the Ray Client address {address}, with which "
            "Ray Data does not work: start the run on the cluster, by `ray job submit`"
        )
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterUnreachable(
            f"no Ray cluster accepts us at RAY_ADDRESS={address} ({error}): start it, correct the address, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it asks for one, or unset RAY_ADDRESS to work locally"
        ) from error

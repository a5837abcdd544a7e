"""Joining or starting Ray, asking whether a step fits, and hearing from its workers."""

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.autoscaler.sdk
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from components.config import StepResources
from components.errors import ClusterUnreachable, TooFewResources
from components.store import objects

DATA_CPUS = 1.0
"""CPUs always left for tasks that read: trainers that hold all of them starve their own readers."""
CONNECT_SECONDS = 5.0
"""Seconds the head gets to accept a connection: Ray itself would go on trying for minutes."""


class Mailbox:
    """Where workers pin what they have to say, by job; the driver takes it down."""

    def __init__(self) -> None:
        self._notes: dict[str, list[Any]] = {}

    def post(self, job: str, note: Any) -> None:
        """Pin one note."""
        self._notes.setdefault(job, []).append(note)

    def take(self, job: str) -> list[Any]:
        """All notes of `job` since the last call, in order."""
        return self._notes.pop(job, [])


class Cluster:
    """The Ray cluster this driver works on. Make it in the main thread: Ray ends with the thread that started it."""

    def __init__(self, *, local_cpus: float, wait: float = 0.0) -> None:
        """Join the cluster that RAY_ADDRESS names, or start a local one with at least `local_cpus` logical CPUs.

        Args:
            local_cpus: logical CPUs the largest set of simultaneous jobs needs; may exceed the cores.
            wait: seconds an autoscaler gets to bring what a step lacks; 0 fails at once.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        self.local = not os.environ.get("RAY_ADDRESS")
        if not os.environ.get("RAY_ADDRESS"):
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings are meant for cluster operators
        if ray.is_initialized():
            self.local = False
        elif self.local:
            cpus = max(os.cpu_count() or 1, int(-(-local_cpus // 1)))
            with _stderr_on_failure():
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        else:
            sent = {
                "py_modules": [str(Path(__file__).resolve().parents[1])],
                "excludes": ["__pycache__"],
                "worker_process_setup_hook": _set_variables(objects.ACCESS_VARIABLES),
            }
            with _connection_errors():
                ray.init(runtime_env=sent, **quiet)
        self._wait = wait
        self._free = threading.Condition()
        self._taken = {"CPU": 0.0, "GPU": 0.0}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Beside the driver: on another node, the loss of that node would end the job.
        mailbox: Any = ray.remote(num_cpus=0)(Mailbox)
        self.mailbox: Any = mailbox.options(scheduling_strategy=here).remote()

    def describe(self) -> str:
        """One line for a person: where, and how much there is."""
        total = ray.cluster_resources()
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        where = "local Ray" if self.local else f"Ray at {os.environ.get('RAY_ADDRESS', 'the running cluster')}"
        return f"{where}: {nodes} node(s), {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs"

    @contextlib.contextmanager
    def reserve(self, what: str, resources: StepResources) -> Iterator[None]:
        """Hold `share` of the cluster while the body runs; waits until jobs of this driver give theirs back.

        Raises TooFewResources when the whole cluster, less the CPU kept for reading, is smaller than that.
        """
        need = {"CPU": resources.workers * resources.cpus, "GPU": resources.workers * resources.gpus}
        self._require(what, resources, need)
        with self._free:
            while not self._fits(need):
                self._free.wait(2.0)  # the cluster may have grown meanwhile
            for name, amount in need.items():
                self._taken[name] += amount
        try:
            yield
        finally:
            with self._free:
                for name, amount in need.items():
                    self._taken[name] -= amount
                self._free.notify_all()

    def _capacity(self) -> dict[str, float]:
        total = ray.cluster_resources()
        return {"CPU": total.get("CPU", 0.0) - DATA_CPUS, "GPU": total.get("GPU", 0.0)}

    def _fits(self, need: dict[str, float]) -> bool:
        capacity = self._capacity()
        return all(self._taken[name] + amount <= capacity[name] + 1e-9 for name, amount in need.items())

    def _require(self, what: str, resources: StepResources, need: dict[str, float]) -> None:
        """Raise TooFewResources unless the cluster is, or within the waiting time becomes, large enough."""
        deadline = time.monotonic() + self._wait
        asked = False
        while any(amount > self._capacity()[name] + 1e-9 for name, amount in need.items()):
            if self._wait and not asked:
                asked = True
                one = {"CPU": resources.cpus, "GPU": resources.gpus} if resources.gpus else {"CPU": resources.cpus}
                ray.autoscaler.sdk.request_resources(bundles=[one] * resources.workers + [{"CPU": DATA_CPUS}])
            if time.monotonic() > deadline:
                capacity = self._capacity()
                raise TooFewResources(
                    f"{what} needs {need['CPU'] + DATA_CPUS:g} CPUs ({DATA_CPUS:g} of them to read data) and "
                    f"{need['GPU']:g} GPUs, the cluster has {capacity['CPU'] + DATA_CPUS:g} CPUs and "
                    f"{capacity['GPU']:g} GPUs: add nodes, or lower resources.* in the config"
                )
            time.sleep(2.0)


def silence_ray_data() -> None:
    """Ray Data in this process: rows in order, no progress bars of its own (the pipeline shows its own)."""
    import ray.data  # a second to import: the board's process does without

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _set_variables(names: Sequence[str]) -> Callable[[], None]:
    """What each worker runs first: it takes over the driver's environment variables `names`, so that it reaches the
    same store. Ray shows `env_vars` in its dashboard and writes them into its logs; this it does not."""
    values = {name: os.environ[name] for name in names if name in os.environ}

    def set_variables() -> None:
        os.environ.update(values)

    return set_variables


@contextlib.contextmanager
def _stderr_on_failure() -> Iterator[None]:
    """Ray's C++ part writes to the file behind stderr that it found its log level: shown only when the body fails."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(before, kept.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)


@contextlib.contextmanager
def _connection_errors() -> Iterator[None]:
    address = os.environ["RAY_ADDRESS"]
    if address.startswith("ray://"):
        raise ClusterUnreachable(
            f"RAY_ADDRESS must be a cluster's host:port or 'auto', got the Ray Client address {address}, through which "
            "Ray Data does not work: start the run on the cluster, by `ray job submit`"
        )
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterUnreachable(
            f"no Ray cluster lets us in at RAY_ADDRESS={address} ({error}): start it, correct the address, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN if it asks for one, or unset RAY_ADDRESS to work locally"
        ) from error

"""Joining or starting Ray, and reserving resources for a step."""

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
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from components.cluster.capacity import Node, describe_shortage, fits, read_nodes
from components.cluster.shared_folder import check_shared
from components.cluster.temporary import ray_folder, set_token
from components.config import StepResources
from components.errors import ClusterUnreachable, TooFewResources
from components.stopping import check_stop, pause
from components.store.objects import ACCESS_VARIABLES

if TYPE_CHECKING:
    from components.cluster.autoscaler import AutoscalerRequest

CONNECT_SECONDS = 5.0
"""Seconds in which the head must accept a connection: Ray itself retries for minutes."""
CAPACITY_POLL_SECONDS = 2.0
"""Seconds between two checks whether the cluster has grown."""
STOP_POLL_SECONDS = 0.5
"""Seconds between two looks whether to stop, while resources are waited for."""


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
    """The Ray cluster this driver works on. A local Ray ends with the thread that started it: make it in one that lives
    as long as it is needed."""

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
        check_stop()
        self._started_here = not ray.is_initialized()
        if not self._started_here:
            self.local = False  # it was started elsewhere and is not ended here
        elif self.local:
            _start_local(max(os.cpu_count() or 1, int(-(-local_cpus // 1))))  # rounded up
        else:
            _join()
        self._autoscale_seconds = autoscale_seconds
        self._autoscaler = _autoscaler_request() if autoscale_seconds else None
        self._released = threading.Condition()
        self._reserved: list[StepResources] = []
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

    def close(self) -> None:
        """Leave the cluster; a local one ends. Does nothing where Ray was started elsewhere."""
        if self._started_here:
            ray.shutdown()

    def check_shared(self, folder: str, what: str) -> None:
        """Raise UsageError when a node of this cluster does not see the local folder that the driver calls `folder`."""
        check_shared(folder, what)

    # --- reserving ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reserve(self, what: str, resources: StepResources) -> Iterator[None]:
        """Hold `resources` while the body runs; waits until other jobs of this driver release theirs.

        Raises TooFewResources when the nodes of the whole cluster, less the CPU kept for reading, have no room for
        them, and an autoscaler adds none in time.
        """
        try:
            self._require_capacity(what, resources)
            self._wait_for_room(what, resources)
        finally:
            if self._autoscaler is not None:
                self._autoscaler.remove(what)
        try:
            yield
        finally:
            with self._released:
                self._reserved.remove(resources)
                self._released.notify_all()

    def _wait_for_room(self, what: str, resources: StepResources) -> None:
        while True:
            with self._released:
                if fits(self._nodes(), [*self._reserved, resources]):
                    self._reserved.append(resources)
                    return
                self._released.wait(STOP_POLL_SECONDS)  # the cluster may have grown meanwhile
            check_stop()
            self._ask_autoscaler(what, resources)

    def _require_capacity(self, what: str, resources: StepResources) -> None:
        """Raise TooFewResources unless the cluster is large enough, or becomes so within the autoscaler's time."""
        deadline = time.monotonic() + self._autoscale_seconds
        while not fits(nodes := self._nodes(), [resources]):
            self._ask_autoscaler(what, resources)
            if time.monotonic() > deadline:
                raise TooFewResources(describe_shortage(what, resources, nodes))
            pause(CAPACITY_POLL_SECONDS)

    def _ask_autoscaler(self, what: str, resources: StepResources) -> None:
        if self._autoscaler is not None:
            self._autoscaler.add(what, resources)

    def _nodes(self) -> list[Node]:
        return read_nodes(ray.nodes())


def _autoscaler_request() -> "AutoscalerRequest":
    from components.cluster.autoscaler import AutoscalerRequest  # imports ray.data: a second of the mailbox's process

    return AutoscalerRequest()


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
    set_token()
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

"""Drivers: processes that run one command of the pipeline, as many a minute as the machine can take.

They are forked from a server process that has imported everything already (multiprocessing's forkserver): a start
costs a few milliseconds instead of the seconds of an import of torch. Each is a process of its own like any other, and
may be killed, stopped and traced.
"""

import atexit
import contextlib
import itertools
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.trap import Trap, watch_operations

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.chaos.driver", "tests.chaos.preload"])
CLEARED = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "DAGSTER_HOME", "AWS_ENDPOINT_URL")
"""Environment variables that would make a driver use a service outside the trial."""
TIME_SCALE = 0.2
"""By this factor the times of leases, requests and retries are shortened in `quick` drivers."""
POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command line of the pipeline, and how its process is set up."""

    arguments: Sequence[str]
    folder: Path
    """Working directory."""
    variables: Mapping[str, str] = field(default_factory=dict)
    ray: bool = False
    """Whether steps and encoders run on Ray; otherwise in the driver's process."""
    quick: bool = True
    """Whether leases, requests and retries take TIME_SCALE of their times."""


class Driver:
    """A started command."""

    def __init__(self, command: Command, log: Path, trap: Trap | None = None) -> None:
        """Start it; its output is appended to `log`."""
        self._sprung = CONTEXT.RawValue("b", 0)  # raw: a killed process would keep a lock
        self._operations = CONTEXT.RawValue("i", 0)
        self._process = CONTEXT.Process(target=_run, args=(command, str(log), trap, self._sprung, self._operations))
        self._process.start()
        self.started = time.monotonic()
        atexit.register(lambda: self.end() if self.running else None)  # multiprocessing would wait for it

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def operations(self) -> int:
        """File operations so far below the trap's folders."""
        return self._operations.value

    @property
    def sprung(self) -> bool:
        """Whether its trap has acted."""
        return bool(self._sprung.value)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped it."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.running:
            os.kill(self.pid, number)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until `condition()` or its end; returns whether the condition held. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.running:
                return condition()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing happened for {seconds:.0f} seconds")
            time.sleep(POLL_SECONDS)
        return True

    def exit_code(self, seconds: float) -> int:
        """Wait for its end; returns the exit code, minus the signal that killed it. Raises TimeoutError."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError(f"it had not ended after {seconds:.0f} seconds")
        return self._process.exitcode

    def end(self) -> None:
        """Kill it, and the processes that it started and that did not leave its session."""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        self._process.join()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _run(command: Command, log: str, trap: Trap | None, sprung, operations) -> None:
    """In the driver's process: what `python -m pipeline <arguments>` does."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    for name in CLEARED:
        os.environ.pop(name, None)
    os.environ.update(command.variables)
    os.chdir(command.folder)
    if command.quick:
        _shorten_times(TIME_SCALE)
    if not command.ray:
        _without_ray()
    if trap is not None:
        _set(trap, sprung, operations)
    sys.argv = ["pipeline", *command.arguments]
    try:
        runpy.run_module("pipeline", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _set(trap: Trap, sprung, operations) -> None:
    numbers = itertools.count(1)  # threads may share it

    def seen(path: str) -> None:
        operations.value = number = next(numbers)
        if number == trap.operation:
            sprung.value = 1
            trap.act()

    watch_operations(trap.folder, seen)


def _shorten_times(scale: float) -> None:
    from components.store import bounded_s3, lease, retries

    for name in ("TIME_TO_LIVE", "RENEW_SECONDS", "BEAT_SECONDS", "LONGEST_LOOK_SECONDS", "WATCH_SECONDS"):
        setattr(lease, name, getattr(lease, name) * scale)
    bounded_s3.REQUEST_SECONDS *= scale
    retries.RETRY_PAUSES = tuple(pause * scale for pause in retries.RETRY_PAUSES)


def _without_ray() -> None:
    """Steps, fits and encoders in the driver's process, as in tests/endtoend/without_ray.py."""
    import pipeline.verbs.codes
    from pipeline.session import Session
    from tests.endtoend.without_ray import run_in_turn

    pipeline.verbs.codes._encode_cluster = lambda *_: contextlib.nullcontext(None)
    Session.cluster = lambda session: None
    Session.run_group = run_in_turn

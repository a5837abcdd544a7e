"""Server processes for tests: each has its own process group, and is stopped by that group."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Server:
    """One running server program; its output goes to `log`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.log = log
        self._stop_signal = stop_signal
        as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=log.parent,
                start_new_session=True,
                **as_user,
            )

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return when `ready()`; raise RuntimeError with the end of the log if the server ends or `seconds` pass."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self._process.poll() is not None:
                raise RuntimeError(f"server ended with exit status {self._process.returncode}; {self._log_end()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"server was not ready after {seconds:.0f} seconds; {self._log_end()}")
            time.sleep(0.1)

    def _log_end(self) -> str:
        return f"the end of its log {self.log}:\n{self.log.read_text(errors='replace')[-3000:]}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server and all processes that it started."""
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """Stop the server and all processes that it started; a second call does nothing."""
        for stop_signal in (self._stop_signal, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, stop_signal)
            except ProcessLookupError:
                break
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                continue


def free_port() -> int:
    """A TCP port of loopback on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    """Whether something accepts connections at `port` of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False

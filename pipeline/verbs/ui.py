"""`ui`: the orchestrator's web UI and its scheduler, on the instance that `run` writes to."""

import contextlib
import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from components.errors import ExitCode, UsageError
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config

GRACE_SECONDS = 30.0
"""Seconds in which the services must stop before they are killed."""


def serve_ui(source: str, overrides: Sequence[str], *, host: str, port: int) -> int:
    """Serve until Ctrl-C, SIGTERM, or the end of the services; returns the exit code."""
    config = load_config(source, overrides)
    _check_free(host, port)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    # A shell that starts a job in the background makes it ignore SIGINT, which is how the services are asked to stop.
    # Setting handlers here also gives the child the default ones.
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    child = _start(config, host, port)
    try:
        return _watch(child, config, host, port, stop)
    finally:
        _end(child)
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_free(host: str, port: int) -> None:
    """Raise UsageError unless this process could listen at the address."""
    if not 0 < port < 65536:
        raise UsageError(f"--port must lie in 1..65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} of {host} is in use: stop what listens there, or give another by --port"
            ) from None
        raise UsageError(
            f"cannot listen at {host}:{port} ({error}): give another address by --host and --port"
        ) from None


def _start(config: PipelineConfig, host: str, port: int) -> subprocess.Popen[bytes]:
    from pipeline.definitions import CONFIG_VARIABLE, instance_folder, write_config

    package, folder = str(Path(__file__).resolve().parents[2]), instance_folder(config)
    welcome = folder / ".nux" / "nux.yaml"  # without it, a newsletter sign-up covers the first page
    welcome.parent.mkdir(exist_ok=True)
    welcome.write_text("seen: 1\n")
    environment = os.environ | {
        "DAGSTER_HOME": str(folder),
        CONFIG_VARIABLE: str(write_config(config)),
        "PYTHONPATH": os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", "ignore"),
    }
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-m",
        "pipeline.definitions",
        "-a",
        "defs",
        "--host",
        host,
        "--port",
        str(port),
    ]
    # A separate process group: Ctrl-C reaches the services only through this process, and the group can be killed.
    return subprocess.Popen(
        [*command, "--log-level", "error"], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )


def _watch(child: subprocess.Popen[bytes], config: PipelineConfig, host: str, port: int, stop: threading.Event) -> int:
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"starting the orchestrator's UI and scheduler of '{config.name}' at {address}", flush=True)
    reported = False
    while not stop.wait(0.5):
        if child.poll() is not None:
            print(
                f"error: the orchestrator's services stopped with exit code {child.returncode}, see above",
                file=sys.stderr,
            )
            return ExitCode.FAILED
        if not reported and _answers(address):  # it takes seconds until the server listens
            reported = True
            scheduled = config.orchestration.schedule is not None
            schedule = f"; it starts runs at {config.orchestration.describe_schedule()}" if scheduled else ""
            print(f"open {address}/asset-groups  (Ctrl-C stops it{schedule})", flush=True)
    print("\nstopping the orchestrator's UI and scheduler", flush=True)
    return ExitCode.DONE


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/server_info", timeout=2) as reply:
            return bool(reply.status == http.client.OK)
    except (OSError, http.client.HTTPException):
        return False


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the services to stop, wait, then kill the whole group."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            print("the services did not stop in time: killing them", file=sys.stderr)
    # Also after an orderly end: a service may have left children in the group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()

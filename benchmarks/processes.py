"""CPU seconds of a command and of every process it starts, by what the process is (Linux /proc)."""

import os
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

LOOK_EVERY = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


def measure(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> tuple[dict[str, float], float]:
    """Run `command`; returns (CPU seconds by kind of process, wall seconds). Raises RuntimeError when it fails.

    Processes are told apart by an environment variable that they inherit; what one does in the last tenth of a second
    of its life is missed.
    """
    marker = f"VQVAE2_MEASURED={uuid.uuid4().hex}"
    name, value = marker.split("=")
    started = time.monotonic()
    with open(cwd / "output.log", "w") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **environment, name: value}, stdout=log, stderr=subprocess.STDOUT
        )
        seconds: dict[tuple[int, str], float] = {}
        kinds: dict[tuple[int, str], str] = {}
        while process.poll() is None:
            _look(marker.encode(), process.pid, seconds, kinds)
            time.sleep(LOOK_EVERY)
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {process.returncode}:\n{(cwd / 'output.log').read_text()[-2000:]}"
        )
    by_kind: dict[str, float] = defaultdict(float)
    for key, spent in seconds.items():
        by_kind[kinds[key]] += spent
    return dict(by_kind), time.monotonic() - started


def _look(marker: bytes, driver: int, seconds: dict[tuple[int, str], float], kinds: dict[tuple[int, str], str]) -> None:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            key = (int(entry.name), stat[19])  # pid and start time: pids are used again
            if key not in kinds and marker not in (entry / "environ").read_bytes():
                continue
            kinds[key] = (
                "driver" if int(entry.name) == driver else _kind((entry / "cmdline").read_bytes(), kinds.get(key))
            )
            seconds[key] = (int(stat[11]) + int(stat[12])) / TICKS
        except (OSError, IndexError):
            continue  # it ended while we looked


def _kind(command: bytes, known: str | None) -> str:
    words = command.replace(b"\0", b" ").decode(errors="replace").strip()
    if words.startswith("ray::"):
        title = words.split("::", 1)[1].split()[0].split("(")[0]
        # A worker that idles again keeps the name of what it did.
        return known if known and title == "IDLE" else f"ray {title}"
    for part in (
        "gcs_server",
        "raylet",
        "log_monitor",
        "runtime_env/agent",
        "dashboard/agent",
        "monitor.py",
        "default_worker.py",
    ):
        if part in words:
            return known if known and known.startswith("ray ") and part == "default_worker.py" else f"ray {part}"
    return known or (Path(words.split()[0]).name if words else "other")


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes.

    Not ru_maxrss of getrusage: a process that was started by a larger one begins there with the memory of that one.
    """
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def describe_machine() -> str:
    """One line: cores, processor, memory, Python, torch."""
    import torch

    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"Python {sys.version.split()[0]}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, {versions}"

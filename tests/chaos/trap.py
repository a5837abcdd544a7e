"""Does harm to a process just before one of its own file operations.

An audit hook (PEP 578) counts what the process does to files below a folder, and acts at a given number: the code
under test is not changed, and the same number is the same point of the same program.
"""

import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVENTS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.utime"}
"""Audit events of operations on files; os.replace is an "os.rename", tempfile.mkstemp an "open"."""
BALLOON = "balloon"
"""File that fills a small disk, in its top folder."""


@dataclass(frozen=True)
class Trap:
    """What happens, and when."""

    folder: str
    """Operations below this folder are counted; several are separated by a line break."""
    operation: int
    """Number, from 1, of the operation just before which `act` is called."""
    act: Callable[[], None]


def watch_operations(folders: str, seen: Callable[[str], None]) -> None:
    """Call `seen` with the path before each file operation of this process below `folders`, for as long as it lives.

    An error that `seen` raises is raised by the operation.
    """
    acting = threading.local()
    prefixes = tuple(folders.split("\n"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or getattr(acting, "now", False):
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(prefixes):
            return
        acting.now = True  # what `seen` does to files is not counted
        try:
            seen(os.fspath(path))
        finally:
            acting.now = False

    sys.addaudithook(hook)


# --- what a trap does -------------------------------------------------------------------------------------------------


def send(number: signal.Signals) -> None:
    """Send a signal to this process."""
    os.kill(os.getpid(), number)


def limit_file_size(size: int) -> None:
    """Let no file of this process grow beyond `size` bytes from now on: writes are cut short, then fail."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def fill_disk(disk: str, leave: int) -> None:
    """Take all the room on `disk` but `leave` bytes."""
    free = shutil.disk_usage(disk).free - leave
    if free > 0:
        with open(Path(disk) / BALLOON, "wb") as balloon:
            os.posix_fallocate(balloon.fileno(), 0, free)


def replace_file(target: str, source: str) -> None:
    """Put another file, complete at once, in the place of `target`, or a new one beside the others."""
    new = Path(target).with_suffix(".incoming")
    shutil.copyfile(source, new)
    later = time.time() + 5  # a file system may not tell apart two writes at the same moment
    os.utime(new, (later, later))
    new.rename(target)


def remove_file(target: str) -> None:
    """Remove `target`."""
    os.unlink(target)


def shift_clock(seconds: float) -> None:
    """Put this process's clock forward, or back; the store's, and those of other processes, stay."""
    now, nanoseconds = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: nanoseconds() + round(seconds * 1e9)

"""Which process this is, told apart from those of other containers, hosts and boots."""

import contextlib
import getpass
import os
import socket
from pathlib import Path


def describe_process() -> str:
    """User, host and process, for people."""
    with contextlib.suppress(OSError, KeyError):
        return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"
    return f"{socket.gethostname()} (process {os.getpid()})"


def this_process() -> str:
    """Boot, process namespace, pid and start of this process; empty where the system does not tell them.

    Not the host's name: containers may share it, and each counts its processes from 1.
    """
    place = _process_namespace()
    return f"{place} {os.getpid()} {_start_ticks(os.getpid())}" if place else ""


def _process_namespace() -> str:
    """Names the set of processes whose pids can be seen from here: the same in two processes of one container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_ticks(pid: int) -> str:
    """When the process began, in clock ticks since boot; empty when there is no such process."""
    try:
        # Field 22 of proc(5) stat; the name in field 2 may hold spaces and ends with the last bracket.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def has_ended(process: str) -> bool:
    """Whether `process` ran where its pid means the same as here and is gone; False where that cannot be known."""
    parts = process.split(" ")
    if len(parts) != 4 or f"{parts[0]} {parts[1]}" != _process_namespace():
        return False
    return _start_ticks(int(parts[2])) != parts[3]

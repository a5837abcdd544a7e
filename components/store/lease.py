"""Who is working on a fingerprint: of two writers, never both.

A lease is a row of numbered files under <root>/leases/<fingerprint>/. The highest number owns; taking over means
creating the next number, which the store grants to one caller only (`create_bytes`). The owner renews its own file.
A lease is stale when its content has not changed for TIME_TO_LIVE seconds of the *watcher's* clock, so clocks of
different machines are never compared. Whoever writes under a lease asks `held()` first: an orphan that was taken
over finds a higher number and stops.
"""

import contextlib
import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from components.errors import LeaseHeld, LeaseLost, StorageError
from components.store import objects

TIME_TO_LIVE = 15.0
"""Seconds without a sign of life after which a lease may be taken over."""
RENEW_SECONDS = 3.0
"""Seconds between two signs of life."""
SETTLE_SECONDS = 0.3
"""Seconds after which two simultaneous puts to an object store have both arrived."""
RELEASED = "released"
"""Beat of a lease that was given back."""


@dataclass(frozen=True)
class Lease:
    """One turn at a fingerprint. Passes to workers as plain data: they may renew it and must check it."""

    folder: str
    number: int
    token: str
    holder: str
    since: str
    process: str = ""
    """Host, pid and start of the process whose end ends every writer under this lease; empty: others may outlive it."""

    @property
    def _uri(self) -> str:
        return objects.join(self.folder, f"{self.number:06d}.json")

    def renew(self) -> None:
        """Sign of life. Raises LeaseLost when another process has taken over."""
        self.check()
        objects.write_bytes(self._uri, self._content(beat=uuid.uuid4().hex))

    def held(self) -> bool:
        """Whether no one has taken over: the highest number is ours, and so is what it holds.

        The second matters on stores whose put-if-absent may let two callers win: the last to write owns.
        """
        numbers = _numbers(self.folder)
        if not numbers:
            return True
        return max(numbers) == self.number and json.loads(objects.read_bytes(self._uri))["token"] == self.token

    def check(self) -> None:
        """Raise LeaseLost unless the lease is still ours."""
        if not self.held():
            raise LeaseLost(f"the lease {self._uri} was taken over by a newer run: this one stops, nothing is lost")

    def release(self) -> None:
        """Let the next one start at once."""
        if self.held():
            objects.write_bytes(self._uri, self._content(beat=RELEASED))

    def _content(self, beat: str) -> bytes:
        return json.dumps({**asdict(self), "beat": beat}).encode()


@dataclass(frozen=True)
class SignOfLife:
    """A sign of life: equal ones, some seconds apart, mean silence."""

    holder: str
    since: str
    beat: str


def read_sign_of_life(folder: str) -> SignOfLife | None:
    """The newest sign of life of whoever holds the lease kept in `folder`; None when nobody does."""
    numbers = _numbers(folder)
    if not numbers:
        return None
    entry = json.loads(objects.read_bytes(objects.join(folder, f"{max(numbers):06d}.json")))
    return None if entry["beat"] == RELEASED else SignOfLife(entry["holder"], entry["since"], entry["beat"])


def _numbers(folder: str) -> list[int]:
    return [
        int(name.removesuffix(".json"))
        for name in objects.object_sizes(folder)
        if name.endswith(".json") and name[:6].isdigit()
    ]


def _holder() -> str:
    with contextlib.suppress(OSError, KeyError):
        return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"
    return f"{socket.gethostname()} (process {os.getpid()})"


def _this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}"


def _started(pid: int) -> str:
    """When the process began, in ticks since the boot; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _ended(process: str) -> bool:
    """Whether `process` ran on this very host and is gone."""
    if not process or not Path("/proc/self/stat").exists():
        return False
    host, pid, started = process.split(" ")
    return host == socket.gethostname() and _started(int(pid)) != started


def _try(folder: str, number: int, alone: bool) -> Lease | None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    lease = Lease(folder, number, uuid.uuid4().hex, _holder(), since, _this_process() if alone else "")
    if not objects.create_bytes(lease._uri, lease._content(beat="taken")):
        return None
    if not objects.is_local(folder):
        time.sleep(SETTLE_SECONDS)
    return lease if lease.held() else None


def acquire_lease(folder: str, *, wait: float, tell: Callable[[str], None], alone: bool = False) -> Lease:
    """Take the lease kept in `folder`; wait for a live holder up to `wait` seconds, then raise LeaseHeld.

    `tell` gets a line for a person whenever there is something to wait for. `alone` says that every writer under this
    lease ends with this process, so that its death, seen on the same host, frees the lease at once.
    """
    seen: bytes | None = None
    seen_at = told_at = started = time.monotonic()
    while True:
        numbers = _numbers(folder)
        if not numbers:
            lease = _try(folder, 1, alone)
            if lease:
                return lease
            continue
        newest = max(numbers)
        content = objects.read_bytes(objects.join(folder, f"{newest:06d}.json"))
        entry = json.loads(content)
        now = time.monotonic()
        if content != seen:
            seen, seen_at = content, now
        silent = now - seen_at
        if entry["beat"] == RELEASED or silent > TIME_TO_LIVE or _ended(entry.get("process", "")):
            lease = _try(folder, newest + 1, alone)
            if lease:
                return lease
            continue
        if now - started > wait:
            raise LeaseHeld(
                f"{folder} is held by {entry['holder']} since {entry['since']} and shows signs of life: "
                "wait for it, or stop it and run again"
            )
        if now - told_at > 5 or told_at == started:
            stale = f"taken over after {TIME_TO_LIVE:.0f} s of silence, now {silent:.0f} s"
            tell(f"waiting for {entry['holder']}, at work here since {entry['since']} ({stale})")
            told_at = now
        time.sleep(0.5)


@contextlib.contextmanager
def keep_alive(lease: Lease) -> Iterator[Lease]:
    """Renew `lease` in the background while the body runs, then release it; killed, it grows stale."""
    try:
        with heartbeat(lease):
            yield lease
    finally:
        with contextlib.suppress(StorageError):
            lease.release()


@contextlib.contextmanager
def heartbeat(lease: Lease) -> Iterator[None]:
    """Renew `lease` in the background while the body runs; who took it releases it."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(RENEW_SECONDS):
            try:
                lease.renew()
            except LeaseLost:
                return
            except StorageError:
                continue  # a passing fault: the next beat tries again, and the writer checks for itself

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

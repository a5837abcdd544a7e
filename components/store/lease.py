"""At most one run writes to an artifact.

A lease is a row of numbered files in <artifact>/.lease/. The highest number owns the artifact; taking over means
creating the next number, which the store grants to one caller only (`create_bytes`). The owner renews its own file. A
lease is stale when its content has not changed for TIME_TO_LIVE seconds of the *watcher's* clock, so clocks of
different machines are never compared. Whoever writes under a lease calls `check()` first: a run whose lease was taken
over finds a higher number and stops. Each number comes with an *attempt*, a name that no other lease ever has: files
that are written under the lease lie in folders of that name (commits.py), so that two holders never write the same
file, however late a request of the former one arrives.
"""

import contextlib
import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from components.errors import LeaseHeld, LeaseLost, StillWriting, StorageError
from components.stopping import pause
from components.store import objects
from components.store.processes import describe_process, has_ended, this_process
from components.store.retries import time_limit

TIME_TO_LIVE = 15.0
"""Seconds without a sign of life after which a lease may be taken over."""
RENEW_SECONDS = 3.0
"""Seconds between two signs of life: several may fail before the lease counts as stale."""
SETTLE_SECONDS = 0.3
"""Seconds after which two simultaneous puts to an object store have both arrived."""
WATCH_SECONDS = 0.5
"""Seconds between two looks at a lease that someone else holds."""
LONGEST_LOOK_SECONDS = 5.0
"""Longest time between two looks that counts as the holder's silence."""
WAITING_LINE_SECONDS = 5.0
"""Seconds between two lines that say what is waited for."""
RELEASED = "released"
"""Beat of a lease that was given back."""
TAKEN = "taken"
"""Beat of a lease that was not renewed yet."""
BEAT_SECONDS = 5.0
"""Seconds in which one sign of life must be given or fail: several fit into a lease's life."""
LEASES_KEPT = 8
"""Numbered files that stay when a lease is taken; older ones are removed."""
LEASE_FOLDER = ".lease"
"""Folder of an artifact's lease, in the artifact's folder."""

_lost: set[tuple[str, str]] = set()
"""(folder, token) of leases that this process knows to be lost."""


def lease_folder(artifact: str) -> str:
    """Where the lease on the artifact in the folder `artifact` is kept, whichever program writes there."""
    return objects.join(artifact, LEASE_FOLDER)


@dataclass(frozen=True)
class Lease:
    """Permission to write under one fingerprint. Workers get it as plain data: they may renew it and must check it."""

    folder: str
    number: int
    token: str
    """Random; tells apart two callers that an object store let create the same number."""
    holder: str
    """User, host and process, for people."""
    since: str
    process: str = ""
    """The process whose end ends all writers under this lease (processes.py); empty: writers may outlive it."""

    @property
    def attempt(self) -> str:
        """Name of what is written under this lease: no other lease on the folder has it."""
        return f"{self.number:06d}-{self.token[:8]}"

    @property
    def lost(self) -> bool:
        """Whether this process knows that another run took over, or gave it back; asks no store."""
        return (self.folder, self.token) in _lost

    @property
    def _uri(self) -> str:
        return _lease_uri(self.folder, self.number)

    def renew(self) -> None:
        """Give a sign of life. Raises LeaseLost when another process has taken over."""
        self.check()
        objects.write_bytes(self._uri, self._content(beat=uuid.uuid4().hex))

    def held(self) -> bool:
        """Whether nobody has taken over and it was not given back: the highest number is ours, and its file holds our
        token.

        The token matters on stores that may let two callers create the same object: the last one to write owns it.
        """
        if (self.folder, self.token) in _lost:
            return False
        numbers = _numbers(self.folder)
        if not numbers:
            return True
        if max(numbers) != self.number:
            return False
        entry = json.loads(objects.read_bytes(self._uri))
        return entry["token"] == self.token and entry["beat"] != RELEASED

    def check(self) -> None:
        """Raise LeaseLost unless the lease is still ours; once it is lost, at once and without asking the store."""
        if not self.held():
            _lost.add((self.folder, self.token))
            raise LeaseLost(
                f"the lease {self._uri} was taken over by a newer run or given back: this one stops, nothing is lost"
            )

    def release(self) -> None:
        """Let the next caller take the lease at once; does nothing when it was taken over."""
        if self.held():
            objects.write_bytes(self._uri, self._content(beat=RELEASED))
            _lost.add((self.folder, self.token))

    def _content(self, beat: str) -> bytes:
        return json.dumps({**asdict(self), "beat": beat}).encode()


@dataclass(frozen=True)
class SignOfLife:
    """What a lease's file says of its holder: two equal ones, some seconds apart, mean that no renewal came between."""

    holder: str
    since: str
    beat: str
    """Changes with every renewal."""


def read_sign_of_life(folder: str) -> SignOfLife | None:
    """The newest sign of life of the lease kept in `folder`; None when nobody holds it."""
    numbers = _numbers(folder)
    if not numbers:
        return None
    entry = json.loads(objects.read_bytes(_lease_uri(folder, max(numbers))))
    return None if entry["beat"] == RELEASED else SignOfLife(entry["holder"], entry["since"], entry["beat"])


def _lease_uri(folder: str, number: int) -> str:
    return objects.join(folder, f"{number:06d}.json")


def _numbers(folder: str) -> list[int]:
    return [
        int(name.removesuffix(".json"))
        for name in objects.object_sizes(folder)
        if name.endswith(".json") and name[:6].isdigit()
    ]


# --- taking it --------------------------------------------------------------------------------------------------------


def acquire_lease(
    folder: str, *, wait_seconds: float, report: Callable[[str], None], ends_with_driver: bool = False
) -> Lease:
    """Take the lease kept in `folder`; wait for a live holder up to `wait_seconds`, then raise LeaseHeld.

    `report` gets a line for a person every few seconds of waiting. `ends_with_driver` says that every writer under this
    lease ends with this process, so that its death, seen on the same host, frees the lease at once.
    """
    watch, started, reported_at = _Watch(folder), time.monotonic(), -math.inf
    while True:
        watch.look()
        if watch.is_free():
            lease = _create(folder, watch.number + 1, ends_with_driver)
            if lease:
                return lease
            continue  # another caller was faster: look again
        if watch.looked_at - started > wait_seconds:
            raise LeaseHeld(
                f"{folder} is held by {watch.holder} since {watch.since} and shows signs of life: "
                "wait for it, or stop it and run again"
            )
        if watch.looked_at - reported_at > WAITING_LINE_SECONDS:
            stale = f"taken over after {TIME_TO_LIVE:.0f} s of silence, now {watch.silence:.0f} s"
            report(f"waiting for {watch.holder}, at work here since {watch.since} ({stale})")
            reported_at = watch.looked_at
        pause(WATCH_SECONDS)


class _Watch:
    """The newest lease of a folder, and how long it has not changed while it was watched."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._content = b""
        self._entry: dict[str, str] = {}
        self.looked_at = time.monotonic()
        self.silence = 0.0
        """Seconds without a change, seen from here. A long time between two looks counts as a short one: this process,
        and perhaps the holder with it, did not run."""
        self.number = 0

    def look(self) -> None:
        """Read the lease with the highest number; number 0 means that there is none."""
        self.number = max(_numbers(self._folder), default=0)
        content = objects.read_bytes(_lease_uri(self._folder, self.number)) if self.number else b""
        before, self.looked_at = self.looked_at, time.monotonic()
        self.silence += min(self.looked_at - before, LONGEST_LOOK_SECONDS)
        if content != self._content:
            self._content, self.silence = content, 0.0
            self._entry = json.loads(content) if content else {}

    def is_free(self) -> bool:
        """Whether the next number may be created: no lease, or one that was released, is stale or lost its process."""
        if not self.number or self._entry["beat"] == RELEASED:
            return True
        return self.silence > TIME_TO_LIVE or has_ended(self._entry.get("process", ""))

    @property
    def holder(self) -> str:
        """Who holds it, for people."""
        return self._entry["holder"]

    @property
    def since(self) -> str:
        """When it was taken, for people."""
        return self._entry["since"]


def _create(folder: str, number: int, ends_with_driver: bool) -> Lease | None:
    """The lease `number`; None when another caller got it."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    process = this_process() if ends_with_driver else ""
    lease = Lease(folder, number, uuid.uuid4().hex, describe_process(), since, process)
    if not objects.create_bytes(lease._uri, lease._content(beat=TAKEN)):
        return None
    if not objects.is_local(folder):
        time.sleep(SETTLE_SECONDS)
    if not lease.held():
        return None
    with contextlib.suppress(StorageError):
        for old in _numbers(folder):
            if old <= number - LEASES_KEPT:
                objects.delete(_lease_uri(folder, old))
    return lease


# --- keeping it -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def keep_alive(lease: Lease, on_lost: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Renew `lease` in the background while the body runs, then release it.

    It goes stale instead if the process is killed, and if the body raises StillWriting.
    """
    still_writing = False
    try:
        with heartbeat(lease, on_lost):
            yield lease
    except StillWriting:
        still_writing = True
        raise
    finally:
        if not still_writing:
            with contextlib.suppress(StorageError), time_limit(BEAT_SECONDS):
                lease.release()


@contextlib.contextmanager
def heartbeat(lease: Lease, on_lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Renew `lease` in the background while the body runs; does not release it, which is up to whoever took it.

    When another run has taken over, `on_lost` is called, once, in the background thread; from then on every `check()`
    in this process raises LeaseLost at once.
    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(RENEW_SECONDS):
            try:
                with time_limit(BEAT_SECONDS):
                    lease.renew()
            except LeaseLost:
                if not done.is_set():
                    on_lost()
                return
            except StorageError:
                continue  # may be transient: the next beat tries again, and writers check the lease themselves

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(BEAT_SECONDS)  # a local folder on a dead network disk may hold it longer

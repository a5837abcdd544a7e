"""Sends what is in the spools to MLflow, in the background and in order, for as long as it takes.

A step puts figures here and goes on; only `flush` waits. What a process leaves unsent, the next one with the same state
folder and tracking URI sends before its own.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.errors import DeletedRecord, LeaseLost, StorageError, TrackingError
from components.stopping import stop_requested
from components.store.lease import TIME_TO_LIVE
from components.tracking.delivery import deliver
from components.tracking.failures import passes, refuses
from components.tracking.server import FIRST_PAUSE, LONGEST_PAUSE, TrackingServer, reason_of, without_password
from components.tracking.spool import Entry, Spool, new_spool, orphaned_spools
from components.tracking.tags import REFUSED_TAG

ANSWER_SECONDS = 20.0
"""How long a request may take at a server that is there."""

LeaseCheck = Callable[[], None]
"""Raises LeaseLost when another driver works on the run."""


def spool_folder(state: str, uri: str) -> Path:
    """Where figures for the store `uri` are kept until they are sent."""
    return Path(state).absolute() / "unsent" / hashlib.sha256(without_password(uri).encode()).hexdigest()[:12]


class Sender:
    """The spool of this process, those of processes that ended, and the thread that empties them."""

    def __init__(self, server: TrackingServer, folder: Path, say: Callable[[str], None]) -> None:
        self._server, self._folder, self._say = server, folder, say
        self._spools: list[Spool] = []  # those of processes that ended, and then our own
        self._own: Spool | None = None
        self._checks: dict[str, LeaseCheck] = {}  # by run
        self._abandoned: set[str] = set()
        self._changed = threading.Condition()
        """Notified when there is something to send, something was sent, or the sender closes."""
        self._progress_at = time.monotonic()
        self._failing_since: float | None = None
        self._refusal: Exception | None = None
        self._thin, self._one_by_one = False, False
        self._lost = 0  # entries that could not be kept
        self._refused: set[str] = set()  # runs of which an entry was dropped
        self._set_aside_files: set[Path] = set()
        self._thread: threading.Thread | None = None

    # --- what others ask for ------------------------------------------------------------------------------------------

    def put(self, run_id: str, kind: str, body: Mapping[str, Any], data: bytes = b"") -> None:
        """Keep one entry and send it soon. Never raises: what cannot be kept is dropped, and that is said."""
        with self._changed:
            if run_id in self._abandoned:
                return
            try:
                dropped = self._open().put(run_id, kind, body, data)
            except (OSError, sqlite3.Error) as error:
                if not self._lost:
                    self._say(f"figures for MLflow cannot be kept in {self._folder} and are dropped: {error}")
                self._lost += 1
                return
            if dropped and not self._thin:
                self._thin = True
                self._say(
                    f"{self._folder} is full while MLflow does not answer: pictures of series and every second of the "
                    "older figures are dropped"
                )
            self._changed.notify_all()

    def _open(self) -> Spool:
        if self._own is None:
            self._own = new_spool(self._folder)
            self._spools.append(self._own)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()
        return self._own

    def adopt(self) -> None:
        """Take over what processes that ended have left; it is sent before our own."""
        with self._changed:
            own = [self._own] if self._own else []
            orphans = [spool for spool in self._spools if spool is not self._own]
            for spool in orphaned_spools(self._folder, self._set_aside_files):
                if spool.count():
                    orphans.append(spool)
                else:
                    spool.close()
            self._spools = [*orphans, *own]
            if orphans:
                count = sum(spool.count() for spool in orphans)
                self._say(f"sending {count} entries that an earlier run could not send to MLflow")
                self._open()
            self._changed.notify_all()

    def watch(self, run_id: str, check: LeaseCheck) -> None:
        """From now on this process works on the run, for as long as `check` does not raise LeaseLost."""
        with self._changed:
            self._abandoned.discard(run_id)
            self._checks[run_id] = check

    def leave(self, run_id: str) -> None:
        """This process no longer works on the run: what it still has to send there may be late."""
        with self._changed:
            self._checks.pop(run_id, None)

    def check(self, run_id: str) -> None:
        """Raise LeaseLost when another driver works on the run."""
        if (check := self._checks.get(run_id)) is not None:
            check()

    def abandon(self, run_id: str) -> int:
        """Drop what is kept for a run that another driver continues, and all that comes later.

        Returns how many entries that were.
        """
        with self._changed:
            self._abandoned.add(run_id)
            self._changed.notify_all()
            return sum(spool.forget(run_id) for spool in self._spools)

    def flush(self, run_id: str, seconds: float | None = None) -> None:
        """Return when everything kept for a run was sent.

        Raises TrackingError after `seconds`, or (None) when nothing was sent for as long as the server's patience; and
        at once when MLflow refuses.
        """
        self._wait(lambda: sum(spool.count(run_id) for spool in self._spools), seconds)

    def flush_adopted(self) -> None:
        """Return when everything was sent that ended processes have left; raises as `flush`."""
        self._wait(lambda: sum(spool.count() for spool in self._spools if spool is not self._own), None)

    def _wait(self, count_unsent: Callable[[], int], seconds: float | None) -> None:
        patience = self._server.patience + ANSWER_SECONDS if seconds is None else seconds
        started = time.monotonic()
        with self._changed:
            while unsent := count_unsent():
                waited = time.monotonic() - (max(started, self._progress_at) if seconds is None else started)
                leaves = self._server.closing.is_set() or (seconds is None and stop_requested())
                if self._refusal is not None or leaves or waited >= patience:
                    reason = reason_of(self._refusal) if self._refusal else f"nothing was sent for {waited:.0f} s"
                    raise TrackingError(
                        f"{unsent} entries could not be sent to MLflow at {without_password(self._server.uri)}: "
                        f"{reason}. They are kept in {self._folder}: run again when it answers"
                    )
                self._changed.wait(min(1.0, max(0.01, patience - waited)))

    def close(self, seconds: float) -> None:
        """Send what can be sent within `seconds` (nothing while MLflow is away), and leave the rest on the disk."""
        try:
            everything = 0.0 if self._server.outage.lasts else seconds
            self._wait(lambda: sum(spool.count() for spool in self._spools), everything)
        except TrackingError:
            self._say(f"figures that MLflow does not have yet are kept in {self._folder}; the next run sends them")
        if self._lost:
            self._say(f"{self._lost} entries for MLflow were dropped, because {self._folder} could not keep them")
        with self._changed:
            self._server.closing.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return  # it hangs in a request, and ends with the process
        for spool in self._spools:
            spool.close()
        self._spools, self._own, self._thread = [], None, None

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._server.closing.is_set():
            try:
                sent = self._send_oldest()
            except sqlite3.Error as error:  # the disk of the state folder
                self._say(f"figures kept in {self._folder} cannot be read, trying again: {error}")
                sent = False
            pause = FIRST_PAUSE if sent else min(2 * pause, LONGEST_PAUSE)
            if not sent:
                self._server.closing.wait(pause)

    def _send_oldest(self) -> bool:
        """Wait for something to send, and send it; False when it has to be tried again."""
        with self._changed:
            spool = next((spool for spool in self._spools if spool.count()), None)
            if spool is None:
                if not self._server.closing.is_set():
                    self._changed.wait()
                return True
            entries = spool.oldest()
            entries = entries[:1] if self._one_by_one else entries
        asked = time.monotonic()
        try:
            self._check_lease(entries[0])
            deliver(self._server.client, entries, late=spool is not self._own or entries[0].run_id not in self._checks)
        except LeaseLost:
            self.abandon(entries[0].run_id)
        except StorageError:  # the lease cannot be read: nobody knows whose run it is
            return False
        except Exception as error:
            return self._failed(spool, entries, error, asked)
        else:
            self._server.outage.over(asked)
            self._sent(spool, entries)
        return True

    def _check_lease(self, entry: Entry) -> None:
        """Ask for the lease of an entry that waited for so long that another driver may have taken it over."""
        if time.time() - float(entry.body["time"]) > TIME_TO_LIVE:
            self.check(entry.run_id)

    def _sent(self, spool: Spool, entries: list[Entry]) -> None:
        with self._changed:
            spool.remove(entries)
            self._progress_at, self._failing_since = time.monotonic(), None
            self._refusal, self._one_by_one = None, False
            if spool is not self._own and not spool.count():
                self._spools.remove(spool)
                spool.close()
            self._changed.notify_all()

    def _failed(self, spool: Spool, entries: list[Entry], error: Exception, asked: float) -> bool:
        """Deal with a failed request; returns whether to go on at once."""
        run_id = entries[0].run_id
        if refuses(error) and spool is not self._own:
            self._set_aside(spool, error)
            return True
        if (refuses(error) or passes(error)) and self._keep_waiting(run_id, error, asked):
            return False
        failure = self._server.failure(error)
        if isinstance(failure, DeletedRecord):
            count = self.abandon(run_id)
            self._say(f"{failure}. {count} entries of figures are dropped")
        elif len(entries) > 1:
            self._one_by_one = True  # only the bad one is dropped
        else:
            if run_id not in self._refused:  # one line per run
                self._say(f"MLflow does not take a {entries[0].kind} entry, it is dropped: {failure}")
            self._refused.add(run_id)
            self._sent(spool, entries)
        return True

    def _keep_waiting(self, run_id: str, error: Exception, asked: float) -> bool:
        """Whether to try a request again: False when only this one fails, for as long as the server's patience."""
        self._server.outage.noticed(error, asked)
        with self._changed:
            self._refusal = error if refuses(error) else None
            self._failing_since = self._failing_since or asked
            self._changed.notify_all()
        impatient = time.monotonic() - self._failing_since >= self._server.patience
        return self._refusal is not None or not impatient or not self._accepts_others(run_id)

    def _set_aside(self, spool: Spool, error: Exception) -> None:
        """Leave a former process's figures where they are: this one may not send them."""
        self._say(f"{spool.file} holds figures of an earlier run that cannot be sent: {reason_of(error)}")
        with self._changed:
            self._set_aside_files.add(spool.file)
            self._spools.remove(spool)
            spool.close()

    def _accepts_others(self, run_id: str) -> bool:
        """Whether MLflow stores something small in the run: then it is the entry that it cannot take."""
        try:
            self._server.client.set_tag(run_id, REFUSED_TAG, "true")
        except Exception:
            return False
        return True

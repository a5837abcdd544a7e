"""Ctrl-C and SIGTERM: a verb is asked to stop, and the process ends soon whatever happens.

A verb that holds leases and a cluster works in another thread and is asked (components/stopping.py): an exception in
the middle of Ray's or the orchestrator's own code would leave both in disorder. Any other verb is interrupted where it
is. The handlers are also set where the shell that started the process made it ignore SIGINT (`command &` in a script):
such a process is stopped by `kill -INT` too.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from types import FrameType

from components.errors import Terminated, exit_code_of
from components.stopping import check_stop, request_stop, stop_requested, withdraw_stop

GRACE_SECONDS = 22.0
"""Seconds that a verb has to leave its work in order; then the process ends without."""
SAME_REQUEST_SECONDS = 1.0
"""A second signal within this time belongs to the first: `timeout` signals a process and then its group."""
POLL_SECONDS = 0.1
"""Seconds between two looks at a verb that works in another thread."""
KINDS: dict[int, type[KeyboardInterrupt]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
WRITE_SECONDS = 1.0
"""Seconds that the last lines may take."""
SHOW_CURSOR = "\x1b[?25h"


def run_interrupted(work: Callable[[], int]) -> int:
    """Result of `work`; a signal raises KeyboardInterrupt or Terminated in the middle of it, a second one ends all."""

    def interrupt(kind: type[KeyboardInterrupt]) -> None:
        raise kind

    with _signals_to(interrupt):
        return work()


def run_asked(work: Callable[[], int]) -> int:
    """Result of `work`, which runs in another thread.

    A signal asks it to stop; then KeyboardInterrupt or Terminated is raised, unless it ended well all the same. When it
    has not ended after GRACE_SECONDS, or a second signal comes, the process ends at once.
    """
    result: Future[int] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    with _signals_to(_ask) as set_handlers:
        threading.Thread(target=run, name="verb", daemon=True).start()
        try:
            _wait(result, set_handlers)
            if stop_requested() and (result.exception() is not None or result.result() != 0):
                check_stop()
            return result.result()
        finally:
            withdraw_stop()


def _ask(kind: type[KeyboardInterrupt]) -> None:
    request_stop(kind)
    notice = "\nstopping; a second signal ends the process at once"
    _in_time(lambda: print(notice, file=sys.stderr, flush=True))


def _wait(result: "Future[int]", set_handlers: Callable[[], None]) -> None:
    deadline = None
    while not wait([result], POLL_SECONDS).done:
        set_handlers()  # again: Ray's C++ part sets its own when it starts, which abort the process
        if not stop_requested():
            continue
        deadline = deadline or time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            try:
                check_stop()
            except KeyboardInterrupt as stop:
                end_process(exit_code_of(stop))


@contextlib.contextmanager
def _signals_to(first: Callable[[type[KeyboardInterrupt]], None]) -> Iterator[Callable[[], None]]:
    """Call `first` at the first signal, end the process at the second; yields what sets the handlers once more.

    Does nothing outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    asked_at: list[float] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        signal.alarm(0)  # set by Ray's C++ handler, where that came first: it would abort the process
        now = time.monotonic()
        if not asked_at:
            asked_at.append(now)
            first(KINDS[number])
        elif now - asked_at[0] > SAME_REQUEST_SECONDS:
            end_process(exit_code_of(KINDS[number]()))

    def set_handlers() -> None:
        for number in KINDS:
            signal.signal(number, on_signal)

    before = {number: signal.getsignal(number) for number in KINDS}
    set_handlers()
    try:
        yield set_handlers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the end of the process -------------------------------------------------------------------------------------------


def end_process(code: int) -> None:
    """End this process and its descendants, Ray's among them, without waiting for threads. Does not return."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    _in_time(_flush)
    os._exit(code)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout.isatty():
            sys.stdout.write(SHOW_CURSOR)  # a progress line hid it
        sys.stdout.flush()
        sys.stderr.flush()


def _in_time(write: Callable[[], None]) -> None:
    """Call `write`, but go on without it where the reader of a pipe, or a stopped terminal, does not take the text."""
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(WRITE_SECONDS)


def descendants(ancestor: int) -> list[int]:
    """Processes started by `ancestor`, by those, and so on; empty where the system has no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            # Field 4 of proc(5) stat; the name in field 2 may hold spaces and ends with the last bracket.
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, unseen = [], [ancestor]
    while unseen:
        unseen += (below := children.get(unseen.pop(), []))
        found += below
    return found

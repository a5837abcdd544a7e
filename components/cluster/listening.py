"""Results of a producing thread, while the calling thread listens to its workers. Leaving it stops what it runs."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

from components.errors import LeaseLost, StillWriting
from components.stopping import check_stop
from components.store.lease import Lease

STOP_SECONDS = 14.0
"""Seconds in which a producer must end once it is told to: Ray Train alone gives its workers five."""
STOP_AGAIN_SECONDS = 1.0
"""Seconds after which a producer that goes on is told again: it may have been about to start."""

Produced = TypeVar("Produced")


@dataclass(frozen=True)
class _End:
    """Last item in the queue of a producing thread."""

    error: BaseException | None


def produce_while_listening(
    produce: Callable[[], Iterable[Produced]],
    listen: Callable[[], None],
    *,
    stop: Callable[[], None],
    lease: Lease,
    poll_seconds: float,
) -> Generator[Produced]:
    """Yield the results of `produce`, which runs in another thread, as soon as they are made.

    Meanwhile the calling thread calls `listen` at least every `poll_seconds`, and once more after the last result, so
    that no message of a worker is lost. An error of `listen` or of `produce` is raised here; so are LeaseLost when
    another run took `lease` over, and KeyboardInterrupt when somebody asked to stop.

    Whoever leaves before the end (by an error, or by closing the generator) leaves nothing running: `stop` is called,
    perhaps several times, until `produce` has returned. Raises StillWriting when it does not: the lease must then not
    be released.
    """
    results: queue.SimpleQueue[Produced | _End] = queue.SimpleQueue()

    def run() -> None:
        try:
            for result in produce():
                results.put(result)
            results.put(_End(None))
        except BaseException as error:
            results.put(_End(error))

    thread = threading.Thread(target=run, name="producer", daemon=True)
    thread.start()
    try:
        while True:
            check_stop()
            check_lost(lease)
            listen()
            try:
                result = results.get(timeout=poll_seconds)
            except queue.Empty:
                continue
            if isinstance(result, _End):
                break
            yield result
        listen()  # for messages posted just before the end
    except BaseException:
        _end(thread, stop)
        with contextlib.suppress(Exception):
            listen()  # for messages posted before the end: a later attempt goes on behind them
        raise
    if result.error is not None:
        raise result.error


def check_lost(lease: Lease) -> None:
    """Raise LeaseLost when this process knows that another run took over; asks no store."""
    if lease.lost:
        raise LeaseLost(f"the lease on {lease.folder} was taken over by a newer run: this one stops, nothing is lost")


def _end(thread: threading.Thread, stop: Callable[[], None]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while thread.is_alive() and time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # what is to be stopped may be gone already
            stop()
        thread.join(STOP_AGAIN_SECONDS)
    if thread.is_alive():
        raise StillWriting(
            f"the workers of this step must end within {STOP_SECONDS:g} s once they are told to, and did not: the "
            "lease stays theirs until they do; run again when they have ended"
        )

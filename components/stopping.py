"""Being asked to stop. Whoever waits, or works for long, looks here meanwhile, and leaves its work in order.

Nothing is raised in the middle of other code: a signal handler calls `request_stop`, and `check_stop` raises where
leaving is safe.
"""

import threading

_requested = threading.Event()
_kinds: list[type[KeyboardInterrupt]] = []


def request_stop(kind: type[KeyboardInterrupt] = KeyboardInterrupt) -> None:
    """Ask everything in this process to stop; `check_stop` raises `kind` from now on. The first request counts."""
    _kinds.append(kind)
    _requested.set()


def stop_requested() -> bool:
    """Whether somebody asked to stop."""
    return _requested.is_set()


def check_stop() -> None:
    """Raise KeyboardInterrupt, or the kind of it that was asked for, once somebody asked to stop."""
    if _requested.is_set():
        raise _kinds[0]


def pause(seconds: float) -> None:
    """Sleep, but not longer than until somebody asks to stop: then as `check_stop`."""
    _requested.wait(seconds)
    check_stop()


def withdraw_stop() -> None:
    """Forget the request: what was asked to stop has ended, and the process goes on."""
    _requested.clear()
    _kinds.clear()

"""Retries for transient object-store errors (throttling, connection resets, time-outs), within a time limit."""

import contextlib
import contextvars
import errno
import math
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

RETRY_PAUSES = (0.5, 2.0, 8.0)
"""Seconds before each further try; within each try, s3fs and botocore retry as well."""
PAUSE_JITTER = (0.5, 1.5)
"""Each pause is multiplied by a random factor from this range, so that workers do not all come back at once."""
_BACKENDS = {"botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec"}
_PERMANENT_ERRORS = {
    "FileNotFoundError",
    "FileExistsError",
    "IsADirectoryError",
    "NotADirectoryError",
    "PermissionError",
    "EndpointConnectionError",
    "ConnectionRefusedError",
    "NoCredentialsError",
}
"""By name, because botocore need not be imported to know its errors."""
_PERMANENT_ERRNO = {errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.ENOSPC}

T = TypeVar("T")

_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=math.inf)
"""Time of the monotonic clock at which this thread's calls of a store must have ended."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Every call of a remote store in the body, retries included, ends within `seconds` in all, or raises an error."""
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def seconds_left() -> float | None:
    """What remains of the innermost `time_limit`, at least a moment; None where there is none."""
    deadline = _deadline.get()
    return None if deadline == math.inf else max(0.05, deadline - time.monotonic())


def with_retries(operation: Callable[[], T]) -> T:
    """The result of `operation`, retried with growing pauses after transient errors; the last error is raised."""
    for pause in RETRY_PAUSES:
        try:
            return operation()
        except Exception as error:
            pause *= random.uniform(*PAUSE_JITTER)
            left = seconds_left()
            if not is_transient(error) or (left is not None and pause >= left):
                raise
        time.sleep(pause)
    return operation()


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    cause: BaseException | None = error
    while cause is not None:
        if any(kind.__name__ in _PERMANENT_ERRORS for kind in type(cause).__mro__):
            return False
        cause = cause.__cause__
    return is_backend_error(error) or (isinstance(error, OSError) and error.errno not in _PERMANENT_ERRNO)


def is_backend_error(error: BaseException) -> bool:
    """Whether `error` is of a class of an object-store client library."""
    return type(error).__module__.split(".")[0] in _BACKENDS

"""Retries for transient object-store errors: throttling, connection resets, time-outs."""

import errno
import random
import time
from collections.abc import Callable
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


def with_retries(operation: Callable[[], T]) -> T:
    """The result of `operation`, retried with growing pauses after transient errors; the last error is raised."""
    for pause in RETRY_PAUSES:
        try:
            return operation()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(pause * random.uniform(*PAUSE_JITTER))
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

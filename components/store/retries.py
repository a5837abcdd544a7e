"""Failures of an object store that pass: throttling, resets, time-outs. They are waited out, then told."""

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

RETRY_PAUSES = (0.5, 2.0, 8.0)
"""Seconds between two tries; within each, s3fs and botocore try again themselves."""
_BACKENDS = {"botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec"}
_LASTING = {
    "FileNotFoundError",
    "FileExistsError",
    "IsADirectoryError",
    "NotADirectoryError",
    "PermissionError",
    "EndpointConnectionError",
    "ConnectionRefusedError",
    "NoCredentialsError",
}
_LASTING_ERRNO = {errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG, errno.ENOSPC}

T = TypeVar("T")


def with_retries(operation: Callable[[], T]) -> T:
    """What `operation` gives, tried again with growing pauses while its failure may pass."""
    for pause in RETRY_PAUSES:
        try:
            return operation()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))  # so that workers do not all come back at once
    return operation()


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    seen: BaseException | None = error
    while seen is not None:
        if any(kind.__name__ in _LASTING for kind in type(seen).__mro__):
            return False
        seen = seen.__cause__
    return is_backend_error(error) or (isinstance(error, OSError) and error.errno not in _LASTING_ERRNO)


def is_backend_error(error: BaseException) -> bool:
    """Whether `error` was raised by a client library of an object store, in words of its own."""
    return type(error).__module__.split(".")[0] in _BACKENDS

"""What backends raise, as StorageError with a cure; and retries where a URI is remote."""

import contextlib
import errno
from collections.abc import Callable, Iterator

from components.errors import StorageError
from components.store.retries import T, is_backend_error, with_retries


@contextlib.contextmanager
def as_storage_error(uri: str) -> Iterator[None]:
    """Turn errors of a backend into StorageError; FileNotFoundError passes, unless the bucket itself is missing."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and s3_error_code(error) != "NoSuchBucket":
            raise
        if error.errno == errno.ENOSPC:
            raise StorageError(
                f"no space left on the device while writing {uri}: free some, or set artifact_root to another disk"
            ) from error
        raise StorageError(f"cannot access {uri}: {_reason(error)}. {access_hint(uri)}") from error
    except Exception as error:
        if is_backend_error(error):
            raise StorageError(f"cannot access {uri}: {_reason(error)}. {access_hint(uri)}") from error
        raise


def _reason(error: Exception) -> str:
    """The error's message; a time-out has none."""
    return "no answer in time" if isinstance(error, TimeoutError) and error.errno is None else str(error)


def run_retried(uri: str, operation: Callable[[], T]) -> T:
    """The result of `operation` on `uri`; on an object store, retried after transient errors."""
    with as_storage_error(uri):
        return with_retries(operation) if "://" in uri else operation()


def s3_error_code(error: OSError) -> str | None:
    """The code in the reply of an S3 server, which s3fs keeps in the cause of what it raises; None for other errors."""
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")


def access_hint(uri: str) -> str:
    """What to check when `uri` cannot be accessed."""
    if "://" in uri:
        return "Check the bucket's name, the network, AWS_ENDPOINT_URL and the credentials in the environment"
    return "Check that the folder exists and is writable"

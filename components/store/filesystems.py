"""Which file system a URI lies on: this machine's disk, S3, or another store that fsspec knows."""

import os
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from components.errors import StorageError
from components.store.retries import seconds_left


def absolute(uri: str) -> str:
    """`uri` itself for a URL; the absolute path for a local folder."""
    return uri if "://" in uri else str(Path(os.path.expanduser(uri)).absolute())  # `~x` stays where x is no user


def is_local_filesystem(fs: Any) -> bool:
    """Whether `fs` is this machine's disk."""
    return isinstance(fs, LocalFileSystem)


def filesystem_of(uri: str) -> tuple[Any, str]:
    """The store of `uri`, and the path there. Only URLs of other stores are left to fsspec, which takes `::` apart."""
    if uri.startswith("s3://"):
        if "?versionId=" in uri:
            raise StorageError(
                f"{uri} must not hold '?versionId=', which s3fs cuts off: copy the object to another key"
            )
        from components.store.bounded_s3 import BoundedS3FileSystem  # importing s3fs takes long

        fs = BoundedS3FileSystem(**_s3_settings())
        return fs, str(fs._strip_protocol(uri))
    if uri.startswith("/") or "://" not in uri:
        return LocalFileSystem(), absolute(uri)
    fs, path = url_to_fs(uri)
    return fs, str(path)


def _s3_settings() -> dict[str, str | None]:
    """What s3fs would read from the environment itself, passed as arguments.

    fsspec caches file systems by their arguments alone, and would go on with the first endpoint and secret that this
    process ever saw.
    """
    variables = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
    settings = {argument: os.environ.get(variable) for argument, variable in variables.items()}
    return settings | {"endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")}


def within_limit(fs: Any) -> dict[str, float]:
    """Arguments that make one call of `fs` end within the caller's `time_limit`."""
    seconds = seconds_left()
    return {} if seconds is None or not getattr(fs, "async_impl", False) else {"timeout": seconds}

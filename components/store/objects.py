"""The artifact store: a local folder or an object store, behind one set of functions. Alone knows s3fs / fsspec.

Credentials and the endpoint come from the usual environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...), never from a config. A URI is a local path or any fsspec URL. commits.py says which folders a
store has.
"""

import contextlib
import io
import os
import posixpath
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from components.errors import StorageError
from components.store.local_files import walk_files, write_whole
from components.store.retries import with_retries
from components.store.storage_errors import access_hint, as_storage_error, run_retried, s3_error_code

ACCESS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""Environment variables with the address and the credentials of an object store."""


@dataclass(frozen=True)
class StoredObject:
    """One object under a folder."""

    path: str
    """Relative to the folder."""
    uri: str
    size: int
    """Bytes."""
    etag: str
    """Changes when the content does: the store's own or, where it has none, the modification time."""


# --- addresses --------------------------------------------------------------------------------------------------------


def _filesystem(uri: str) -> tuple[Any, str]:
    fs, path = url_to_fs(uri, **(_s3_settings() if uri.startswith("s3://") else {}))
    return fs, str(path)


def _s3_settings() -> dict[str, str | None]:
    """What s3fs would read from the environment itself, passed as arguments.

    fsspec caches file systems by their arguments alone, and would go on with the first endpoint and secret that this
    process ever saw.
    """
    variables = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
    settings = {argument: os.environ.get(variable) for argument, variable in variables.items()}
    return settings | {"endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")}


def is_local(uri: str) -> bool:
    """Whether `uri` lies on this machine's disk."""
    return isinstance(_filesystem(uri)[0], LocalFileSystem)


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` below it."""
    return posixpath.join(uri, *parts)


def absolute(uri: str) -> str:
    """`uri` itself for a URL; the absolute path for a local folder."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def local_path(uri: str) -> Path:
    """Path of a local `uri`."""
    return Path(_filesystem(uri)[1])


# --- reading ----------------------------------------------------------------------------------------------------------


def read_bytes(uri: str) -> bytes:
    """Content of one object; raises FileNotFoundError when it is not there, StorageError when the store fails."""
    return read_range(uri, None, None)


def read_range(uri: str, start: int | None, stop: int | None) -> bytes:
    """Bytes start..stop-1 of one object, as `read_bytes`; None: from its start, to its end."""
    fs, path = _filesystem(uri)

    def read() -> bytes:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.cat_file(path, start=start, end=stop)

    return run_retried(uri, read)


@contextlib.contextmanager
def open_object(uri: str) -> Iterator[Any]:
    """One object as a seekable binary file, read in pieces on demand."""
    fs, path = _filesystem(uri)
    with as_storage_error(uri), run_retried(uri, lambda: fs.open(path, "rb")) as file:
        yield file if isinstance(fs, LocalFileSystem) else _RetryingFile(uri, file)


class _RetryingFile(io.RawIOBase):
    """A remote file that retries each read after transient errors."""

    def __init__(self, uri: str, file: Any) -> None:
        self._uri, self._file = uri, file

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()

        def read_from_start() -> bytes:
            self._file.seek(start)  # a failed try may have moved on
            return self._file.read(size)

        return run_retried(self._uri, read_from_start)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def download(folder: str, target: Path) -> None:
    """Copy every object under `folder` to the local folder `target`."""
    for name in object_sizes(folder):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(read_bytes(join(folder, name)))


# --- listing ----------------------------------------------------------------------------------------------------------


def stat_object(uri: str) -> StoredObject:
    """One object, as `list_objects` gives it with the name as path; raises FileNotFoundError when it is not there."""
    fs, path = _filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        with as_storage_error(uri):
            status = os.stat(path)
        return StoredObject(posixpath.basename(path), uri, status.st_size, str(status.st_mtime_ns))

    def ask() -> Mapping[str, Any]:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.info(path)

    info = run_retried(uri, ask)
    return StoredObject(posixpath.basename(path), uri, info["size"], _etag(info))


def object_sizes(folder: str) -> dict[str, int]:
    """Bytes of every object under `folder`, by path relative to it; empty when there is none."""
    fs, path = _filesystem(folder)
    try:
        objects = run_retried(folder, lambda: _find(fs, path))
    except FileNotFoundError:
        return {}
    return {posixpath.relpath(name, path): info["size"] for name, info in objects.items()}


def list_objects(folder: str) -> list[StoredObject]:
    """Every object under `folder`, sorted by path, links followed; empty when there is none."""
    root = absolute(folder)
    fs, path = _filesystem(root)
    with as_storage_error(folder):
        if isinstance(fs, LocalFileSystem):
            listed = {
                posixpath.relpath(name, path): (status.st_size, str(status.st_mtime_ns))
                for name, status in walk_files(path)
            }
        else:
            objects = run_retried(root, lambda: _find(fs, path)).items()
            listed = {posixpath.relpath(name, path): (info["size"], _etag(info)) for name, info in objects}
    return [StoredObject(name, join(root, name), *listed[name]) for name in sorted(listed) if name != "."]


def _find(fs: Any, path: str) -> dict[str, Any]:
    fs.invalidate_cache()
    return fs.find(path, detail=True)


def _etag(info: Mapping[str, Any]) -> str:
    names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    mark = next((info[name] for name in names if info.get(name)), "")
    return str(mark.timestamp() if isinstance(mark, datetime) else mark).strip('"')


# --- writing ----------------------------------------------------------------------------------------------------------


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object whole or not at all: a reader sees the old content or the new, nothing between."""
    fs, path = _filesystem(uri)

    def write() -> None:
        if isinstance(fs, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_whole(Path(path), data, os.replace)
        else:
            fs.pipe_file(path, data)

    run_retried(uri, write)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write one object only if none is there yet; returns whether it was written (of two callers, one wins)."""
    fs, path = _filesystem(uri)
    with as_storage_error(uri):
        if isinstance(fs, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            try:
                write_whole(Path(path), data, os.link)
            except FileExistsError:
                return False
            return True
        try:
            with_retries(lambda: fs.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return False
        except OSError as error:
            # 412: the object exists; 409: another put is under way. The code is the same on every server, the text not.
            if s3_error_code(error) in {"PreconditionFailed", "ConditionalRequestConflict"}:
                return False
            raise
        return True


def copy_object(source: str, target: str) -> bool:
    """Copy one object inside a store without reading it here: on a disk, as a second name of the same file.

    Returns False where that is not possible: the caller writes the content then.
    """
    fs, path = _filesystem(target)
    other, source_path = _filesystem(source)
    if fs is not other:
        return False
    try:
        if isinstance(fs, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)
            os.link(source_path, path)
        else:
            run_retried(target, lambda: fs.cp_file(source_path, path))
    except (OSError, StorageError):  # gone, on another disk, or not allowed
        return False
    return True


def delete(uri: str) -> None:
    """Remove the object, or the folder and everything in it; does nothing when it is not there."""
    fs, path = _filesystem(uri)

    def remove() -> None:
        fs.invalidate_cache()
        fs.rm(path, recursive=True)

    with contextlib.suppress(FileNotFoundError):
        run_retried(uri, remove)


def check_writable(root: str) -> None:
    """Write, read and delete a probe under `root`; raises StorageError with the cure when that fails."""
    probe = join(root, f".probe-{os.getpid()}")
    try:
        write_bytes(probe, b"probe")
        content = read_bytes(probe)
    except FileNotFoundError as error:
        raise StorageError(f"cannot write below {root}: {error}. {access_hint(root)}") from error
    if content != b"probe":
        raise StorageError(f"{root} returned other bytes than were written: is another program changing it?")
    delete(probe)


# --- the store itself -------------------------------------------------------------------------------------------------


def arrow_filesystem(uri: str) -> tuple[Any, str]:
    """The store as (pyarrow filesystem, path on it), for Ray Train and Parquet readers."""
    import pyarrow.fs as arrow

    fs, path = _filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return arrow.LocalFileSystem(), path
    return arrow.PyFileSystem(arrow.FSSpecHandler(fs)), path


def free_bytes(uri: str) -> int | None:
    """Bytes free on the disk of a local `uri`; None for an object store."""
    if not is_local(uri):
        return None
    path = local_path(uri)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free

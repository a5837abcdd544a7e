"""The artifact store: a local folder or an object store, behind one set of functions. Alone knows s3fs / fsspec.

Credentials and the endpoint come from the usual environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...), never from a config. A URI is a local path or any fsspec URL.

    <root>/<kind>/<fingerprint>/        one artifact: its files, and manifest.json, written last
    <root>/<kind>/<fingerprint>/.work/  what a running step keeps: checkpoints, half-done shards
    <root>/leases/<fingerprint>/        who is working on it (components/lease.py)
"""

import contextlib
import errno
import io
import os
import posixpath
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from components.errors import StorageError
from components.store.retries import T, is_backend_error, with_retries

ACCESS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""Environment variables that say where an object store is and how to be let in."""


@dataclass(frozen=True)
class StoredObject:
    """One object found under a folder: path relative to it, URI, bytes, and what changes when its content does."""

    path: str
    uri: str
    size: int
    etag: str


@contextlib.contextmanager
def _as_storage_error(uri: str) -> Iterator[None]:
    """Turn what a backend raises into StorageError with a cure."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _s3_code(error) != "NoSuchBucket":
            raise
        if error.errno == errno.ENOSPC:
            raise StorageError(
                f"no space left on the device while writing {uri}: free some, or set artifact_root to another disk"
            ) from error
        raise StorageError(f"cannot access {uri}: {error}. {_hint(uri)}") from error
    except Exception as error:
        if is_backend_error(error):
            raise StorageError(f"cannot access {uri}: {error}. {_hint(uri)}") from error
        raise


def _retried(uri: str, operation: Callable[[], T]) -> T:
    """What `operation` gives; on an object store, tried again while its failure may pass."""
    with _as_storage_error(uri):
        return with_retries(operation) if "://" in uri else operation()


def _s3_code(error: OSError) -> str | None:
    """The code in the reply of an S3 server, which s3fs keeps as the cause of what it raises."""
    return getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")


def _hint(uri: str) -> str:
    if "://" in uri:
        return "Check the bucket's name, the network, AWS_ENDPOINT_URL and the credentials in the environment"
    return "Check that the folder exists and is writable"


def _filesystem(uri: str) -> tuple[Any, str]:
    fs, path = url_to_fs(uri, **(_s3_settings() if uri.startswith("s3://") else {}))
    return fs, str(path)


def _s3_settings() -> dict[str, str | None]:
    """What s3fs would read from the environment itself: but fsspec keeps instances by their arguments alone, and
    would go on with the first endpoint and secret that this process ever saw."""
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


def read_bytes(uri: str) -> bytes:
    """Content of one object; raises FileNotFoundError when it is not there, StorageError when the store fails."""
    return read_range(uri, None, None)


def read_range(uri: str, start: int | None, stop: int | None) -> bytes:
    """Bytes start..stop-1 of one object, as `read_bytes`; None: from its start, to its end."""
    fs, path = _filesystem(uri)

    def read() -> bytes:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.cat_file(path, start=start, end=stop)

    return _retried(uri, read)


def stat_object(uri: str) -> StoredObject:
    """One object as `listing` tells it; raises FileNotFoundError when it is not there."""
    fs, path = _filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        with _as_storage_error(uri):
            info = os.stat(path)
        return StoredObject(posixpath.basename(path), uri, info.st_size, str(info.st_mtime_ns))

    def ask() -> Mapping[str, Any]:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.info(path)

    found = _retried(uri, ask)
    return StoredObject(posixpath.basename(path), uri, found["size"], _etag(found))


@contextlib.contextmanager
def open_object(uri: str) -> Iterator[Any]:
    """One object as a seekable binary file, read piece by piece as it is needed."""
    fs, path = _filesystem(uri)
    with _as_storage_error(uri), _retried(uri, lambda: fs.open(path, "rb")) as file:
        yield file if isinstance(fs, LocalFileSystem) else _RetryingFile(uri, file)


class _RetryingFile(io.RawIOBase):
    """A remote file each of whose reads is tried again while its failure may pass."""

    def __init__(self, uri: str, file: Any) -> None:
        self._uri, self._file = uri, file

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()

        def again() -> bytes:
            self._file.seek(start)
            return self._file.read(size)

        return _retried(self._uri, again)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object whole or not at all: a reader sees the old content or the new, nothing between."""
    fs, path = _filesystem(uri)

    def write() -> None:
        if isinstance(fs, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            _write_local(Path(path), data, os.replace)
        else:
            fs.pipe_file(path, data)

    _retried(uri, write)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write one object only if none is there yet; returns whether it was written (of two callers, one wins)."""
    fs, path = _filesystem(uri)
    with _as_storage_error(uri):
        if isinstance(fs, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            try:
                _write_local(Path(path), data, os.link)
            except FileExistsError:
                return False
            return True
        try:
            with_retries(lambda: fs.pipe_file(path, data, mode="create"))
        except FileExistsError:
            return False
        except OSError as error:
            # An object is there (412) or another put under way (409): the code is the same everywhere, the text is not.
            if _s3_code(error) in {"PreconditionFailed", "ConditionalRequestConflict"}:
                return False
            raise
        return True


def _write_local(path: Path, data: bytes, publish: Callable[[str, Path], None]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def object_sizes(folder: str) -> dict[str, int]:
    """Bytes of every object under `folder`, by path relative to it; empty when there is none."""
    fs, path = _filesystem(folder)
    try:
        found = _retried(folder, lambda: _find(fs, path))
    except FileNotFoundError:
        return {}
    return {posixpath.relpath(name, path): entry["size"] for name, entry in found.items()}


def list_objects(folder: str) -> list[StoredObject]:
    """Every object under `folder`, sorted by path, links followed; empty when there is none.

    The etag is the store's own or, where it has none, the modification time.
    """
    root = absolute(folder)
    fs, path = _filesystem(root)
    with _as_storage_error(folder):
        if isinstance(fs, LocalFileSystem):
            found = {
                posixpath.relpath(name, path): (info.st_size, str(info.st_mtime_ns))
                for name, info in _walk_local(path, ())
            }
        else:
            objects = _retried(root, lambda: _find(fs, path)).items()
            found = {posixpath.relpath(name, path): (info["size"], _etag(info)) for name, info in objects}
    return [StoredObject(name, join(root, name), *found[name]) for name in sorted(found) if name != "."]


def _find(fs: Any, path: str) -> dict[str, Any]:
    fs.invalidate_cache()
    return fs.find(path, detail=True)


def _etag(info: Mapping[str, Any]) -> str:
    names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")
    found = next((info[name] for name in names if info.get(name)), "")
    return str(found.timestamp() if isinstance(found, datetime) else found).strip('"')


def _walk_local(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result]]:
    """Files below `folder`; fsspec's own walk leaves out linked folders and passes over unreadable ones in silence."""
    try:
        here = os.stat(folder)
    except FileNotFoundError:
        return
    if (here.st_dev, here.st_ino) in above:
        raise StorageError(f"{folder} links back to a folder that holds it: remove that link")
    if not stat.S_ISDIR(here.st_mode):
        return
    with os.scandir(folder) as entries:
        for found in entries:
            if found.is_dir():
                yield from _walk_local(found.path, (*above, (here.st_dev, here.st_ino)))
            elif found.is_file() or found.is_symlink():  # a link to nothing is listed: its reader must get to know
                yield found.path, found.stat(follow_symlinks=found.is_file())


def delete(uri: str) -> None:
    """Remove the object or the folder with all in it; nothing happens when it is not there."""
    fs, path = _filesystem(uri)

    def remove() -> None:
        fs.invalidate_cache()
        fs.rm(path, recursive=True)

    with contextlib.suppress(FileNotFoundError):
        _retried(uri, remove)


def download(folder: str, target: Path) -> None:
    """Copy every object under `folder` to the local folder `target`."""
    for name in object_sizes(folder):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(read_bytes(join(folder, name)))


def arrow_filesystem(uri: str) -> tuple[Any, str]:
    """The store as (pyarrow filesystem, path on it), for Ray Train and Parquet readers."""
    import pyarrow.fs as arrow

    fs, path = _filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        return arrow.LocalFileSystem(), path
    return arrow.PyFileSystem(arrow.FSSpecHandler(fs)), path


def check_writable(root: str) -> None:
    """Write, read and delete a probe under `root`; raises StorageError with the cure when that fails."""
    probe = join(root, f".probe-{os.getpid()}")
    try:
        write_bytes(probe, b"probe")
        found = read_bytes(probe)
    except FileNotFoundError as error:
        raise StorageError(f"cannot write below {root}: {error}. {_hint(root)}") from error
    if found != b"probe":
        raise StorageError(f"{root} gave back other bytes than were written: is another program changing it?")
    delete(probe)


def free_bytes(uri: str) -> int | None:
    """Bytes free on the disk of a local `uri`; None for an object store."""
    if not is_local(uri):
        return None
    path = local_path(uri)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free

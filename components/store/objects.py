"""The artifact store: a local folder or an object store, behind one set of functions.

Credentials and the endpoint come from the usual environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...), never from a config. A URI is a local path or any fsspec URL. commits.py says which folders a
store has.

Every request of a remote store has a time limit (filesystems.py) and is tried again after transient errors
(retries.py); `time_limit` bounds all calls in its body together.
"""

import contextlib
import functools
import io
import os
import posixpath
import shutil
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from components.errors import StorageError
from components.store.filesystems import absolute, filesystem_of, is_local_filesystem, within_limit
from components.store.listing import ObjectPage, etag_of, list_folders, list_local, list_s3, without_folders
from components.store.local_files import walk_files, write_whole
from components.store.range_file import RangeFile
from components.store.retries import with_retries
from components.store.storage_errors import as_storage_error, run_retried, s3_error_code

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
CONCURRENT_DELETES = 16
"""Objects that are deleted from an object store at the same time."""


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
    modified: float = 0.0
    """When it was last written, in seconds since 1970 by the store's clock; 0 where the store does not say."""


# --- addresses --------------------------------------------------------------------------------------------------------


def is_local(uri: str) -> bool:
    """Whether `uri` lies on this machine's disk."""
    return is_local_filesystem(filesystem_of(uri)[0])


def join(uri: str, *parts: str) -> str:
    """`uri` with `parts` below it."""
    return posixpath.join(uri, *parts)


def local_path(uri: str) -> Path:
    """Path of a local `uri`."""
    return Path(filesystem_of(uri)[1])


# --- reading ----------------------------------------------------------------------------------------------------------


def read_bytes(uri: str) -> bytes:
    """Content of one object; raises FileNotFoundError when it is not there, StorageError when the store fails."""
    return read_range(uri, None, None)


def read_range(uri: str, start: int | None, stop: int | None) -> bytes:
    """Bytes start..stop-1 of one object, as `read_bytes`; None: from its start, to its end."""
    fs, path = filesystem_of(uri)

    def read() -> bytes:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.cat_file(path, start=start, end=stop, **within_limit(fs))

    return run_retried(uri, read)


@contextlib.contextmanager
def open_object(uri: str, read_ahead: int = 0) -> Iterator[Any]:
    """One object as a seekable binary file, read in pieces on demand.

    A remote file asks for what is read and for nothing more, or for at least `read_ahead` bytes at a time.
    """
    fs, path = filesystem_of(uri)
    if is_local_filesystem(fs):
        with as_storage_error(uri), open(path, "rb") as file:
            yield file
        return
    remote = range_file(uri, stat_object(uri).size)
    with as_storage_error(uri):
        yield io.BufferedReader(remote, read_ahead) if read_ahead else remote


def range_file(uri: str, size: int) -> RangeFile:
    """One object of `size` bytes as a file: each read asks for exactly what is read, and nothing else is asked."""
    return RangeFile(functools.partial(read_range, uri), size)


def download(folder: str, target: Path) -> None:
    """Copy every object under `folder` to the local folder `target`."""
    for name in object_sizes(folder):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(read_bytes(join(folder, name)))


# --- listing ----------------------------------------------------------------------------------------------------------


def stat_object(uri: str) -> StoredObject:
    """One object, as `list_objects` gives it with the name as path; raises FileNotFoundError when it is not there."""
    fs, path = filesystem_of(uri)
    if is_local_filesystem(fs):
        with as_storage_error(uri):
            status = os.stat(path)
        etag = str(status.st_mtime_ns)
        return StoredObject(posixpath.basename(path), uri, status.st_size, etag, status.st_mtime)

    def ask() -> Mapping[str, Any]:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.info(path, **within_limit(fs))

    info = run_retried(uri, ask)
    return StoredObject(posixpath.basename(path), uri, info["size"], etag_of(info), _modified(info))


def object_sizes(folder: str) -> dict[str, int]:
    """Bytes of every object under `folder`, by path relative to it; empty when there is none."""
    fs, path = filesystem_of(folder)
    try:
        objects = run_retried(folder, lambda: _find(fs, path))
    except FileNotFoundError:
        return {}
    return {posixpath.relpath(name, path): info["size"] for name, info in objects.items()}


def iter_objects(folder: str, without: Collection[str] = ()) -> Iterator[ObjectPage]:
    """Every object under `folder`, page by page and in any order, links followed; no object when it is not there.

    Objects below the folders `without`, absolute URIs, are left out.
    """
    root = absolute(folder)
    fs, path = filesystem_of(root)
    if is_local_filesystem(fs):
        return list_local(path, [local_path(uri).as_posix() for uri in without if is_local(uri)])

    def list_folder(name: str) -> list[dict[str, Any]]:
        fs.invalidate_cache()
        return fs.ls(name, detail=True, **within_limit(fs))

    def list_keys(**arguments: Any) -> Mapping[str, Any]:
        return fs.call_s3("list_objects_v2", **arguments, **within_limit(fs))

    pages = list_s3(list_keys, path, root) if hasattr(fs, "call_s3") else list_folders(list_folder, path, root)
    inside = [uri.removeprefix(f"{root.rstrip('/')}/") for uri in without if uri.startswith(f"{root.rstrip('/')}/")]
    return without_folders(pages, inside) if inside else pages


def list_objects(folder: str) -> list[StoredObject]:
    """Every object under `folder`, sorted by path, links followed; empty when there is none."""
    root = absolute(folder)
    fs, path = filesystem_of(root)
    with as_storage_error(folder):
        if is_local_filesystem(fs):
            listed = {
                posixpath.relpath(name, path): (status.st_size, str(status.st_mtime_ns), status.st_mtime)
                for name, status in walk_files(path)
            }
        else:
            objects = run_retried(root, lambda: _find(fs, path)).items()
            listed = {
                posixpath.relpath(name, path): (info["size"], etag_of(info), _modified(info)) for name, info in objects
            }
    return [StoredObject(name, join(root, name), *listed[name]) for name in sorted(listed) if name != "."]


def names_in(folder: str, kind: Literal["file", "directory"]) -> list[str]:
    """Names of the files or folders in `folder` itself, sorted; empty when it is not there."""
    fs, path = filesystem_of(folder)

    def names() -> list[str]:
        fs.invalidate_cache()
        return sorted(
            posixpath.basename(entry["name"].rstrip("/"))
            for entry in fs.ls(path, detail=True, **within_limit(fs))
            if entry["type"] == kind
        )

    try:
        return run_retried(folder, names)
    except FileNotFoundError:
        return []


def _find(fs: Any, path: str) -> dict[str, Any]:
    fs.invalidate_cache()
    return fs.find(path, detail=True, **within_limit(fs))


def _modified(info: Mapping[str, Any]) -> float:
    mark = next((info[name] for name in ("LastModified", "last_modified", "mtime", "created") if info.get(name)), 0.0)
    return mark.timestamp() if isinstance(mark, datetime) else float(mark)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object whole or not at all: a reader sees the old content or the new, nothing between."""
    fs, path = filesystem_of(uri)

    def write() -> None:
        if is_local_filesystem(fs):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_whole(Path(path), data, os.replace)
        else:
            fs.pipe_file(path, data, **within_limit(fs))

    run_retried(uri, write)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write one object only if none is there yet; returns whether it was written (of two callers, one wins).

    A request whose answer is lost is sent again, and then finds what it wrote itself: that counts as written. Two
    callers must therefore not try to create the same content, unless they do not mind to win both.
    """
    fs, path = filesystem_of(uri)
    with as_storage_error(uri):
        if is_local_filesystem(fs):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            try:
                write_whole(Path(path), data, os.link)
            except FileExistsError:
                return False
            return True
        tries = 0

        def create() -> bool:
            nonlocal tries
            tries += 1
            try:
                fs.pipe_file(path, data, mode="create", **within_limit(fs))
            except OSError as error:
                # 412: the object exists; 409: another put is under way. The code is the same on every server, the
                # text not.
                refusals = {"PreconditionFailed", "ConditionalRequestConflict"}
                if isinstance(error, FileExistsError) or s3_error_code(error) in refusals:
                    return False
                raise
            return True

        return with_retries(create) or (tries > 1 and read_bytes(uri) == data)


def copy_object(source: str, target: str) -> bool:
    """Copy one object inside a store without reading it here: on a disk, as a second name of the same file.

    Returns False where that is not possible: the caller writes the content then.
    """
    fs, path = filesystem_of(target)
    other, source_path = filesystem_of(source)
    if fs is not other:
        return False
    if source_path == path:
        return True
    try:
        if is_local_filesystem(fs):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).unlink(missing_ok=True)
            os.link(source_path, path)
        else:
            run_retried(target, lambda: fs.cp_file(source_path, path, **within_limit(fs)))
    except (OSError, StorageError):  # gone, on another disk, or not allowed
        return False
    return True


def delete(uri: str) -> None:
    """Remove the object, or the folder and everything in it; does nothing when it is not there."""
    fs, path = filesystem_of(uri)
    if is_local_filesystem(fs):
        with as_storage_error(uri), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        return

    def remove(name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            run_retried(uri, lambda: fs.rm_file(name, **within_limit(fs)))

    with contextlib.suppress(FileNotFoundError), ThreadPoolExecutor(CONCURRENT_DELETES) as pool:
        # Not fs.rm: it takes *, ? and [ in a name for patterns.
        list(pool.map(remove, run_retried(uri, lambda: _find(fs, path))))


# --- the store itself -------------------------------------------------------------------------------------------------


def arrow_filesystem(uri: str) -> tuple[Any, str]:
    """The store as (pyarrow filesystem, path on it), for Ray Train and Parquet readers."""
    import pyarrow.fs as arrow

    fs, path = filesystem_of(uri)
    if is_local_filesystem(fs):
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

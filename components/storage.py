"""The artifact store: a local folder or an object store, behind one set of functions. Alone knows s3fs / fsspec.

Credentials and the endpoint come from the usual environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...), never from a config. A URI is a local path or any fsspec URL.

    <root>/<kind>/<fingerprint>/        one artifact: its files, and manifest.json, written last
    <root>/<kind>/<fingerprint>/.work/  what a running step keeps: checkpoints, half-done shards
    <root>/leases/<fingerprint>/        who is working on it (components/lease.py)
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import posixpath
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from components.passing import Result, is_the_backends, tried

ACCESS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
"""Environment variables that say where an object store is and how to be let in."""
MANIFEST = "manifest.json"
WORK = ".work"


class StorageError(Exception):
    """The store cannot be reached, read or written; the message says which URI and what to check."""


@dataclass(frozen=True)
class FileEntry:
    """One committed file: path relative to the artifact's folder, bytes, SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Listed:
    """One object found under a folder: path relative to it, URI, bytes, and what changes when its content does."""

    path: str
    uri: str
    size: int
    etag: str


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
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
        if is_the_backends(error):
            raise StorageError(f"cannot access {uri}: {error}. {_hint(uri)}") from error
        raise


def _tried(uri: str, operation: Callable[[], Result]) -> Result:
    """What `operation` gives; on an object store, tried again while its failure may pass."""
    with _translated(uri):
        return tried(operation) if "://" in uri else operation()


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


def read_bytes(uri: str) -> bytes:
    """Content of one object; raises FileNotFoundError when it is not there, StorageError when the store fails."""
    return read_range(uri, None, None)


def read_range(uri: str, start: int | None, stop: int | None) -> bytes:
    """Bytes start..stop-1 of one object, as `read_bytes`; None: from its start, to its end."""
    fs, path = _filesystem(uri)

    def read() -> bytes:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.cat_file(path, start=start, end=stop)

    return _tried(uri, read)


def look(uri: str) -> Listed:
    """One object as `listing` tells it; raises FileNotFoundError when it is not there."""
    fs, path = _filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        with _translated(uri):
            info = os.stat(path)
        return Listed(posixpath.basename(path), uri, info.st_size, str(info.st_mtime_ns))

    def ask() -> Mapping[str, Any]:
        fs.invalidate_cache(posixpath.dirname(path))
        return fs.info(path)

    found = _tried(uri, ask)
    return Listed(posixpath.basename(path), uri, found["size"], _etag(found))


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Any]:
    """One object as a seekable binary file, read piece by piece as it is needed."""
    fs, path = _filesystem(uri)
    with _translated(uri), _tried(uri, lambda: fs.open(path, "rb")) as file:
        yield file if isinstance(fs, LocalFileSystem) else _Patient(uri, file)


class _Patient(io.RawIOBase):
    """A remote file each of whose reads is tried again while its failure may pass."""

    def __init__(self, uri: str, file: Any) -> None:
        self._uri, self._file = uri, file

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()

        def again() -> bytes:
            self._file.seek(start)
            return self._file.read(size)

        return _tried(self._uri, again)

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

    _tried(uri, write)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write one object only if none is there yet; returns whether it was written (of two callers, one wins)."""
    fs, path = _filesystem(uri)
    with _translated(uri):
        if isinstance(fs, LocalFileSystem):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            try:
                _write_local(Path(path), data, os.link)
            except FileExistsError:
                return False
            return True
        try:
            tried(lambda: fs.pipe_file(path, data, mode="create"))
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


def sizes(folder: str) -> dict[str, int]:
    """Bytes of every object under `folder`, by path relative to it; empty when there is none."""
    fs, path = _filesystem(folder)
    try:
        found = _tried(folder, lambda: _find(fs, path))
    except FileNotFoundError:
        return {}
    return {posixpath.relpath(name, path): entry["size"] for name, entry in found.items()}


def listing(folder: str) -> list[Listed]:
    """Every object under `folder`, sorted by path, links followed; empty when there is none.

    The etag is the store's own or, where it has none, the modification time.
    """
    root = absolute(folder)
    fs, path = _filesystem(root)
    with _translated(folder):
        if isinstance(fs, LocalFileSystem):
            found = {
                posixpath.relpath(name, path): (info.st_size, str(info.st_mtime_ns))
                for name, info in _walk_local(path, ())
            }
        else:
            objects = _tried(root, lambda: _find(fs, path)).items()
            found = {posixpath.relpath(name, path): (info["size"], _etag(info)) for name, info in objects}
    return [Listed(name, join(root, name), *found[name]) for name in sorted(found) if name != "."]


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
        _tried(uri, remove)


def download(folder: str, target: Path) -> None:
    """Copy every object under `folder` to the local folder `target`."""
    for name in sizes(folder):
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
    path = Path(_filesystem(uri)[1])
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


# --- committing an artifact -------------------------------------------------------------------------------------------


def entry(path: str, data: bytes) -> FileEntry:
    """The manifest's line for `data` stored at `path` relative to the artifact's folder."""
    return FileEntry(path, len(data), hashlib.sha256(data).hexdigest())


def digest_of_files(files: Sequence[FileEntry]) -> str:
    """SHA-256 over the sorted (path, SHA-256) of the files: the digest of the artifact they make."""
    lines = "".join(f"{file.path} {file.sha256}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256(lines.encode()).hexdigest()


def commit(folder: str, files: Sequence[FileEntry], facts: Mapping[str, Any]) -> str:
    """Write manifest.json, last of all and whole: from now on `folder` is an artifact. Returns its digest."""
    digest = digest_of_files(files)
    listed = [vars(file) for file in sorted(files, key=lambda file: file.path)]
    manifest = {"format": 1, "digest": digest, "files": listed, "facts": dict(facts)}
    write_bytes(join(folder, MANIFEST), json.dumps(manifest, indent=1, sort_keys=True).encode())
    return digest


def save(folder: str, contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> str:
    """Write `contents` (relative path -> bytes) and commit them; returns the digest."""
    for path, data in contents.items():
        write_bytes(join(folder, path), data)
    return commit(folder, [entry(path, data) for path, data in contents.items()], facts)


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a committed artifact; raises FileNotFoundError when there is none."""
    return json.loads(read_bytes(join(folder, MANIFEST)))


def read_listed(folder: str, file: Mapping[str, Any]) -> bytes:
    """Content of one line of a manifest's `files`, checked against its SHA-256; raises StorageError when it differs."""
    data = read_bytes(join(folder, file["path"]))
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise _other_content(folder, file)
    return data


def check_listed(folder: str, file: Mapping[str, Any]) -> None:
    """As `read_listed`, for a file that may be larger than memory."""
    hashed = hashlib.sha256()
    with opened(join(folder, file["path"])) as source:
        while piece := source.read(1 << 23):
            hashed.update(piece)
    if hashed.hexdigest() != file["sha256"]:
        raise _other_content(folder, file)


def _other_content(folder: str, file: Mapping[str, Any]) -> StorageError:
    return StorageError(f"{file['path']} in {folder} is not the file that its manifest lists: run the step again")


def faults(folder: str, digest: str) -> list[str]:
    """What is wrong with a committed artifact: no manifest, another digest, missing or cut files. Empty: whole."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        return [f"{join(folder, MANIFEST)} is missing"]
    except (ValueError, KeyError):
        return [f"{join(folder, MANIFEST)} is not a manifest"]
    if manifest["digest"] != digest:
        return [f"{folder} holds content {manifest['digest'][:12]}, expected {digest[:12]}"]
    found = sizes(folder)
    wrong = []
    for file in manifest["files"]:
        if file["path"] not in found:
            wrong.append(f"{file['path']} is missing from {folder}")
        elif found[file["path"]] != file["size"]:
            wrong.append(
                f"{file['path']} in {folder} has {found[file['path']]} bytes, its manifest says {file['size']}"
            )
    return wrong


def local_copy(folder: str, cache: Path | None = None) -> Path:
    """Local folder with the committed files of `folder`: itself when local, else a download cached by its digest."""
    if is_local(folder):
        return Path(_filesystem(folder)[1])
    manifest = read_manifest(folder)
    target = (cache or Path(tempfile.gettempdir()) / "vqvae2-cache") / manifest["digest"]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent))
        for file in manifest["files"]:
            (staging / file["path"]).parent.mkdir(parents=True, exist_ok=True)
            (staging / file["path"]).write_bytes(read_bytes(join(folder, file["path"])))
        with contextlib.suppress(OSError):  # another process was first: its copy is the same
            staging.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
    return target

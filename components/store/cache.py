"""Copies of stored files on this machine: made once, checked, repaired, and removed when they take too much room.

<temporary folder>/vqvae2-<user>/<name>/         one entry: files of an artifact, or what was unpacked from them
<temporary folder>/vqvae2-<user>/<name>.lock     shared by the processes that use the entry
<temporary folder>/vqvae2-<user>/<name>.making   held by the process that makes the entry

A process shares the lock of an entry that it uses until it ends. Entries that nobody uses are removed when the cache is
too large, those that were used longest ago first. Each user of the machine has a cache of their own.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from components.errors import StorageError

SIZE_VARIABLE, FOLDER_VARIABLE = "VQVAE2_CACHE_BYTES", "VQVAE2_CACHE"
"""Environment variables: how much room the cache may take, and the folder that it lies in."""
DISK_FRACTION = 0.2
"""Part of the disk that the cache may take where SIZE_VARIABLE is not set."""
INDEX_FILE = ".files.json"
"""Size of each file of an entry, by path, written when the entry is complete."""

_uses: dict[Path, int] = {}
"""File descriptors of the lock files of the entries that this process uses, by entry; open until it ends."""


def cache_folder() -> Path:
    """Where this user's cache lies: FOLDER_VARIABLE, or a folder with the user's number in the temporary folder."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path(tempfile.gettempdir()) / f"vqvae2-{os.getuid()}")


def fetch(name: str, make: Callable[[Path], None], root: Path | None = None) -> Path:
    """Folder of the entry `name` below `root` (None: `cache_folder`); `make` fills it where it is missing or broken.

    It is not removed before this process ends. Raises what `make` raises, and StorageError when the cache cannot be
    written.
    """
    folder = root or cache_folder()
    entry = folder / name
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _use(entry)
        if not _is_whole(entry):
            with _lock_file(entry, "making").open("a") as making:
                fcntl.flock(making, fcntl.LOCK_EX)  # released when this process dies
                if not _is_whole(entry):
                    _make(entry, make)
                    _evict(folder)
        os.utime(_lock_file(entry, "lock"))  # tells when it was used last
    return entry


def _lock_file(entry: Path, kind: str) -> Path:
    return entry.with_name(f"{entry.name}.{kind}")


def _use(entry: Path) -> None:
    """Keep other processes from removing the entry, until this one ends."""
    if entry not in _uses:
        _uses[entry] = os.open(_lock_file(entry, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(_uses[entry], fcntl.LOCK_SH)


def _is_whole(entry: Path) -> bool:
    """Whether every file is there with its size: programs that clean temporary folders remove single files."""
    try:
        sizes = json.loads((entry / INDEX_FILE).read_text())
        return all((entry / path).stat().st_size == size for path, size in sizes.items())
    except (OSError, ValueError):
        return False


def _make(entry: Path, make: Callable[[Path], None]) -> None:
    """Replace the entry as a whole; a former, broken one stays readable for those who have its files open."""
    staging = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".making-"))  # on the same disk: renaming is atomic
    try:
        made = staging / "made"
        made.mkdir()
        make(made)
        sizes = {str(path.relative_to(made)): path.stat().st_size for path in made.rglob("*") if path.is_file()}
        (made / INDEX_FILE).write_text(json.dumps(sizes))
        with contextlib.suppress(FileNotFoundError):
            entry.rename(staging / "broken")
        made.rename(entry)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _evict(folder: Path) -> None:
    """Remove entries that nobody uses, those used longest ago first, until the cache is small enough."""
    entries = [path for path in folder.iterdir() if (path / INDEX_FILE).is_file()]
    sizes = {path: sum(json.loads((path / INDEX_FILE).read_text()).values()) for path in entries}
    for path in sorted(entries, key=_last_use):
        if sum(sizes.values()) <= _size_limit(folder):
            return
        # The lock is refused while a process uses the entry.
        with _lock_file(path, "lock").open("a") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            del sizes[path]


def _last_use(entry: Path) -> float:
    lock = _lock_file(entry, "lock")
    return lock.stat().st_mtime if lock.exists() else 0.0


def _size_limit(folder: Path) -> float:
    given = os.environ.get(SIZE_VARIABLE, "")
    if given and not given.isdigit():
        raise StorageError(f"{SIZE_VARIABLE} must be a number of bytes, got {given!r}: correct or unset it")
    return float(given) if given else DISK_FRACTION * shutil.disk_usage(folder).total


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:  # of what is copied, not of the cache
        raise
    except OSError as error:
        raise StorageError(
            f"the cache {folder} must be writable and have room, got: {error}. Free some space, or set "
            f"{FOLDER_VARIABLE} to a folder on another disk"
        ) from error

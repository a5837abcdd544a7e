"""Files of a store that is a local folder: whole writes, and walks that follow links."""

import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from components.errors import StorageError

NAME_START = 40
"""Characters of a file's name in that of its temporary file, which must not be longer than a name may be."""
FileIdentity = tuple[int, int]
"""Device and inode."""


def write_whole(path: Path, data: bytes, publish: Callable[[str, Path], None]) -> None:
    """Write `data` to a temporary file beside `path`, flush it to disk, then `publish(temporary, path)`.

    With os.replace readers see the old content or the new; with os.link it raises FileExistsError if `path` exists.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:NAME_START]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def identity_of(path: str) -> FileIdentity | None:
    """Which file or folder a path leads to; None when there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def is_temporary(path: str) -> bool:
    """Whether `write_whole` made `path` for a file that it had not published: a process that is killed leaves it."""
    return re.fullmatch(r"\..+\.[a-z0-9_]{8}", os.path.basename(path)) is not None


def walk_files(
    folder: str, above: tuple[FileIdentity, ...] = (), skipped: frozenset[FileIdentity] = frozenset()
) -> Iterator[tuple[str, os.stat_result]]:
    """Path and status of every file below `folder`, links followed; nothing when it is not there.

    fsspec's own walk leaves out linked folders and ignores unreadable ones. `above` are the folders that the walk came
    through; a link back to one of them raises StorageError. Folders in `skipped` are not entered.
    """
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise StorageError(f"{folder} links back to a folder that holds it: remove that link")
    if not stat.S_ISDIR(status.st_mode) or identity in skipped:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from walk_files(entry.path, (*above, identity), skipped)
            elif entry.is_file() or entry.is_symlink():  # a broken link is listed too, so that its reader fails
                yield entry.path, entry.stat(follow_symlinks=entry.is_file())

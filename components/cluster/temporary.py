"""The folder in which a local Ray keeps its sockets, logs and locks: short, writable and this user's own.

Ray's default is one folder for all users of a machine, in which the second user may not write the locks of the first.
Knows no Ray.
"""

import os
import secrets
import tempfile
from pathlib import Path

from components.errors import WorldError

SOCKET_BYTES = 107
"""Longest path of a Unix socket."""
RAY_BYTES = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store.0")
"""Bytes that Ray adds to the folder."""
FALLBACK = "/tmp"
"""Tried where the temporary folder's path is too long."""


def ray_folder() -> Path:
    """RAY_TMPDIR, or a folder of this user's in the temporary folder, made if need be.

    Raises WorldError, which names the variable to change, when there is none that Ray can use.
    """
    if given := os.environ.get("RAY_TMPDIR"):
        fault = _fault(Path(given))
        if fault:
            raise WorldError(f"RAY_TMPDIR={given} {fault}: set RAY_TMPDIR to another folder, or unset it")
        return Path(given)
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise WorldError(f"no temporary folder can be written ({error}): set TMPDIR to a folder that can") from None
    faults = []
    for parent in dict.fromkeys((temporary, FALLBACK)):
        folder = Path(parent) / f"ray-{os.getuid()}"
        fault = _fault(folder)
        if not fault:
            return folder
        faults.append(f"{folder} {fault}")
    raise WorldError(f"Ray needs a folder for its sockets; {'; '.join(faults)}: set TMPDIR to another folder")


def set_token() -> None:
    """Give a new local Ray a token where it could not keep one: it writes it below HOME."""
    home = os.path.expanduser("~")
    if not os.access(home, os.W_OK | os.X_OK) and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _fault(folder: Path) -> str | None:
    """Why Ray cannot use `folder`, which is made if it is missing; None where it can."""
    length = len(os.fsencode(folder.absolute()))
    if length > SOCKET_BYTES - RAY_BYTES:
        return f"must be at most {SOCKET_BYTES - RAY_BYTES} bytes long for Ray's sockets, has {length}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return f"must be writable ({error.strerror})"
    if folder.name == f"ray-{os.getuid()}" and status.st_uid != os.getuid():
        return f"must be this user's own, belongs to user {status.st_uid}"
    return None

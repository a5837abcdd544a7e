"""How a failed command ends: one sentence on stderr with the cure, the traceback in a file, and the exit codes."""

import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path

from components.errors import ExitCode, PipelineError, exit_code_of
from pipeline.surroundings import folder_faults, network_faults

CURES = {
    errno.EACCES: "change its owner or mode, or name another place",
    errno.EPERM: "change its owner or mode, or name another place",
    errno.EROFS: "name a place on a disk that can be written",
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some space, or name a place on another disk",
    errno.ENOENT: "correct the path",
    errno.EEXIST: "a file is where a folder must be: name another place",
    errno.ENOTDIR: "a file is where a folder must be: correct the path",
    errno.EISDIR: "a folder is where a file must be: correct the path",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EMFILE: "raise the limit on open files: ulimit -n 65536",
    errno.ENOMEM: "free some memory, or lower batch sizes",
}
"""What to do about an error of the operating system."""
PACKAGES = [Path(__file__).resolve().parents[1] / name for name in ("components", "pipeline")]
FOLDER_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS)


def exit_code_table() -> str:
    """One line per code: the code and what it means."""
    return "\n".join(["exit codes:", *(f"  {code.value:<4} {code.meaning}" for code in ExitCode)]) + "\n"


def report_error(error: Exception) -> ExitCode:
    """Print what went wrong and what to do; returns the exit code.

    The traceback of an error that was not raised on purpose goes into a file, which is named.
    """
    print(f"error: {describe_error(error)}", file=sys.stderr)
    code = exit_code_of(error)
    if code == ExitCode.UNREACHABLE:
        for fault in network_faults():
            print(f"note: {fault}", file=sys.stderr)
    if isinstance(error, OSError) and error.errno in FOLDER_ERRORS:
        for fault in folder_faults():
            print(f"note: {fault}", file=sys.stderr)
    if not _is_on_purpose(error):
        file = _save_traceback(error)
        print(f"(the traceback is in {file})" if file else "(--traceback shows where it came from)", file=sys.stderr)
    return code


def describe_error(error: BaseException) -> str:
    """What went wrong: our own errors in full, errors of the operating system with a cure, others in one line."""
    if isinstance(error, PipelineError):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in CURES and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror.lower()}: {CURES[error.errno]}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if any(line.lstrip().startswith(("File ", "Traceback ")) for line in lines):
        return lines[-1]  # a traceback of another process, which ends with its error
    named = type(error) in (OSError, RuntimeError) or isinstance(error, ValueError)
    return lines[0] if named else f"{lines[0]} ({type(error).__name__})"


def _is_on_purpose(error: Exception) -> bool:
    """Whether the message is meant for the user: our own errors, and a ValueError that our own code raised."""
    if isinstance(error, PipelineError) or (isinstance(error, OSError) and error.errno in CURES):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and any(Path(frames[-1].filename).is_relative_to(package) for package in PACKAGES)
    return isinstance(error, ValueError) and ours


def _save_traceback(error: BaseException) -> str | None:
    """The file that the traceback was written to; None where no file can be written."""
    try:
        handle, path = tempfile.mkstemp(prefix="vqvae2-error-", suffix=".txt")
        with os.fdopen(handle, "w", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return None
    return path

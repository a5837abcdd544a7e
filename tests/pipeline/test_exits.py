"""How a failed command ends: one sentence with a cure, and the traceback in a file."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from components.errors import ExitCode, LeaseHeld, StorageError, TrackingError
from pipeline.exits import describe_error, report_error

REMOTE = (
    '\x1b[36mray::fit()\x1b[39m (pid=7)\n  File "step.py", line 3, in fit\n    raise ValueError(x)\nValueError: no rows'
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("count must be at least 1\nmore"), "count must be at least 1"),
        (RuntimeError(REMOTE), "ValueError: no rows"),
        (KeyError("label"), "'label' (KeyError)"),
        (RuntimeError(), "RuntimeError"),
        (StorageError("first\nsecond"), "first\nsecond"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "/x: permission denied: change its owner or mode, or",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device: free some space"),
        (OSError(errno.EROFS, "Read-only file system", "/r"), "/r: read-only file system: name a place on a disk"),
        (OSError("full"), "full"),
    ],
)
def test_an_error_is_one_sentence(error, text):
    assert describe_error(error).startswith(text)


def test_the_traceback_of_an_unexpected_error_is_in_the_named_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    try:
        {}["label é"]
    except KeyError as error:
        assert report_error(error) == ExitCode.FAILED
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: 'label é' (KeyError)"
    (file,) = tmp_path.iterdir()
    assert second == f"(the traceback is in {file})" and "test_exits.py" in file.read_text()


def test_an_error_that_was_raised_on_purpose_needs_no_traceback(capsys):
    assert report_error(LeaseHeld("host works on it")) == ExitCode.HELD
    assert capsys.readouterr().err == "error: host works on it\n"


def test_an_error_is_told_where_no_file_can_be_written(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    report_error(RuntimeError("x"))
    assert capsys.readouterr().err == "error: x\n(--traceback shows where it came from)\n"


def test_an_unreachable_server_names_the_proxy(capsys, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:3128")
    assert report_error(TrackingError("no answer")) == ExitCode.UNREACHABLE
    said = capsys.readouterr().err
    assert "note: HTTPS_PROXY=http://***@proxy:3128 is set" in said and "no_proxy" in said and "secret" not in said


def test_a_folder_that_cannot_be_written_names_the_variable(capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    report_error(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(Path("/x"))))
    assert "note: TMPDIR=/nonexistent cannot be written" in capsys.readouterr().err

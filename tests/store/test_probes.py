"""A store is tried before anything is written to it."""

import os

import pytest

from components.errors import StorageError
from components.store import probes


def test_a_folder_that_cannot_be_written_is_told_with_a_cure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Check that the folder exists and is writable"):
        probes.check_writable(str(tmp_path / "file" / "below"))


def test_a_store_that_creates_an_object_twice_is_refused(monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    write = MemoryFileSystem.pipe_file
    monkeypatch.setattr(
        MemoryFileSystem, "pipe_file", lambda self, path, value, mode="", **more: write(self, path, value)
    )
    with pytest.raises(StorageError, match=r"must refuse to create an object that exists \(PUT with If-None-Match"):
        probes.check_writable("memory://careless")


def test_probes_of_killed_processes_are_removed_once_they_are_old(tmp_path):
    for name, age in ((".probe-old", probes.PROBE_AGE + 60), (".probe-new", 60), ("other", 1e9)):
        (tmp_path / name).write_bytes(b"probe")
        os.utime(tmp_path / name, (tmp_path.stat().st_mtime - age,) * 2)
    probes.check_writable(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".probe-new", "other"]

"""A local Ray gets a folder that is short, writable and this user's own; else the variable to change is named."""

import os
import tempfile
from pathlib import Path

import pytest

from components.cluster import temporary
from components.cluster.temporary import RAY_BYTES, SOCKET_BYTES, ray_folder, set_token
from components.errors import WorldError


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """A short folder as the temporary one, and no variable set."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setattr(temporary, "FALLBACK", folder)
        yield Path(folder)


def test_each_user_has_a_folder(short):
    assert ray_folder() == short / f"ray-{os.getuid()}" and ray_folder().stat().st_mode & 0o777 == 0o700


def test_a_temporary_folder_with_a_long_path_is_not_used(short, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(short / ("x" * 60)))
    assert ray_folder() == short / f"ray-{os.getuid()}"
    monkeypatch.setattr(temporary, "FALLBACK", str(short / ("y" * 60)))
    with pytest.raises(WorldError, match=r"must be at most \d+ bytes long for Ray's sockets, has .*: set TMPDIR"):
        ray_folder()


def test_a_given_folder_is_used_or_refused_by_its_name(short, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(short / "mine"))
    assert ray_folder() == short / "mine"
    monkeypatch.setenv("RAY_TMPDIR", str(short / ("é" * 40)))
    with pytest.raises(
        WorldError, match=r"RAY_TMPDIR=.* must be at most .*: set RAY_TMPDIR to another folder, or unset"
    ):
        ray_folder()
    (short / "file").write_text("")
    monkeypatch.setenv("RAY_TMPDIR", str(short / "file"))
    with pytest.raises(WorldError, match="must be writable"):
        ray_folder()


def test_a_folder_that_another_user_made_is_refused(short, monkeypatch):
    (short / "ray-12345").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(WorldError, match=f"must be this user's own, belongs to user {os.stat(short).st_uid}"):
        ray_folder()


def test_the_longest_socket_of_ray_fits():
    assert len("/tmp/ray-1000000") <= SOCKET_BYTES - RAY_BYTES


def test_a_token_that_home_cannot_keep_is_in_the_environment(monkeypatch, short):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # undone after the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(short))
    set_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("HOME", "/nonexistent")
    set_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64

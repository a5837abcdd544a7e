"""Copies on this machine: made once, repaired, and removed by size, but never what is in use."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from components.errors import StorageError
from components.store import cache


def maker(content: bytes = b"x", made: list[str] | None = None):
    def make(folder: Path) -> None:
        (folder / "below").mkdir()
        (folder / "below" / "file").write_bytes(content)
        if made is not None:
            made.append(folder.name)

    return make


@pytest.fixture(autouse=True)
def nothing_in_use(monkeypatch):
    monkeypatch.setattr(cache, "_uses", {})


def end_process() -> None:
    """What the end of this process would do."""
    for descriptor in cache._uses.values():
        os.close(descriptor)
    cache._uses.clear()


def test_an_entry_is_made_once(tmp_path):
    made: list[str] = []
    threads = [threading.Thread(target=cache.fetch, args=("entry", maker(made=made), tmp_path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and (tmp_path / "entry" / "below" / "file").read_bytes() == b"x"


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_an_entry_from_which_a_cleaner_took_files_is_made_again(tmp_path, harm):
    file = cache.fetch("entry", maker(), tmp_path) / "below" / "file"
    harm(file)
    assert (cache.fetch("entry", maker(), tmp_path) / "below" / "file").read_bytes() == b"x"


def test_the_entry_used_longest_ago_goes_and_one_in_use_never(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.SIZE_VARIABLE, "25")
    for name, used in (("old", 2000), ("older", 1000)):
        cache.fetch(name, maker(b"0123456789"), tmp_path)
        os.utime(tmp_path / f"{name}.lock", (used, used))
    end_process()
    cache.fetch("new", maker(b"0123456789"), tmp_path)
    assert not (tmp_path / "older").exists() and (tmp_path / "old").exists()
    cache.fetch("newest", maker(b"0123456789"), tmp_path)
    assert not (tmp_path / "old").exists() and (tmp_path / "new").exists()  # this process uses `new`


def test_an_entry_that_another_process_uses_stays(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.SIZE_VARIABLE, "5")
    code = (
        "import sys; from pathlib import Path; from components.store import cache\n"
        "cache.fetch('theirs', lambda folder: (folder / 'f').write_bytes(b'0123456789'), Path(sys.argv[1]))\n"
        "print('in use', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in use\n"
    cache.fetch("ours", maker(), tmp_path)
    assert (tmp_path / "theirs").exists()
    other.communicate()
    cache.fetch("more", maker(), tmp_path)
    assert not (tmp_path / "theirs").exists()


def test_a_maker_that_fails_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.fetch("entry", fail, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_each_user_has_a_cache_and_a_folder_can_be_given(monkeypatch):
    monkeypatch.delenv(cache.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(cache.os, "getuid", lambda: 4711)
    assert cache.cache_folder().name == "vqvae2-4711"
    monkeypatch.setenv(cache.FOLDER_VARIABLE, "/elsewhere")
    assert cache.cache_folder() == Path("/elsewhere")


def test_an_unusable_folder_and_size_are_told_with_the_cure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"must be writable and have room.* set VQVAE2_CACHE"):
        cache.fetch("entry", maker(), tmp_path / "file")
    monkeypatch.setenv(cache.SIZE_VARIABLE, "10 GB")
    with pytest.raises(StorageError, match="VQVAE2_CACHE_BYTES must be a number of bytes, got '10 GB'"):
        cache.fetch("entry", maker(), tmp_path)

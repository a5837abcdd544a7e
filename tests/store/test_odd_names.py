"""Names with characters that URLs, patterns or shells give a meaning are names like any other, on disk and on S3."""

import unicodedata

import pytest

from components.store import objects
from components.store.probes import check_writable

NAMES = ["x::y", "a #b", "50%", "a%20b", "a+b", "qu?x=1", "st*r", "br[a-z]", "{a,b}", "new\nline", " lead", "trail "]
NAMES += [".hidden", "dots..", "UPPER.JPG", "😀", "quo'te", 'd"q', "a\\b", "a&b;c", "$HOME", "@b", "a=b", "~x", "~"]
NAMES += [unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "n" * 255, "file:x", "s3:", "-r"]


@pytest.fixture(params=["disk", pytest.param("s3", marks=[pytest.mark.services, pytest.mark.slow])])
def folder(request, tmp_path, monkeypatch):
    """A folder on the disk, or in the bucket of a real server."""
    if request.param == "disk":
        return str(tmp_path)
    s3 = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3.bucket}/odd"


def test_objects_of_every_name_are_written_listed_read_and_removed(folder):
    for number, name in enumerate(NAMES):
        uri = objects.join(folder, name)
        objects.write_bytes(uri, bytes([number]) * 9)
        assert not objects.create_bytes(uri, b"second")
        assert objects.read_range(uri, 1, 3) == bytes([number]) * 2
        assert objects.stat_object(uri).size == 9
    assert [each.path for each in objects.list_objects(folder)] == sorted(NAMES) and len(set(NAMES)) == len(NAMES)
    assert {each.path: objects.read_bytes(each.uri)[0] for each in objects.list_objects(folder)} == {
        name: number for number, name in enumerate(NAMES)
    }
    for name in NAMES:
        objects.delete(objects.join(folder, name))
    assert objects.object_sizes(folder) == {}


@pytest.mark.parametrize("pattern", ["*", "?", "[a]", "{a,b}", "a*", "%61"])
def test_a_name_that_looks_like_a_pattern_removes_and_reads_nothing_else(folder, pattern):
    objects.write_bytes(objects.join(folder, pattern, "a", "one"), b"1")
    objects.write_bytes(objects.join(folder, "a", "one"), b"2")
    assert list(objects.object_sizes(objects.join(folder, pattern))) == ["a/one"]
    objects.delete(objects.join(folder, pattern))
    assert list(objects.object_sizes(folder)) == ["a/one"] and objects.read_bytes(objects.join(folder, "a/one")) == b"2"
    objects.delete(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_every_name_holds_objects(tmp_path, name):
    root = tmp_path / name
    check_writable(str(root))
    objects.write_bytes(objects.join(str(root), "a", "b"), b"x")
    assert objects.object_sizes(str(root)) == {"a/b": 1} and (root / "a" / "b").read_bytes() == b"x"
    assert objects.is_local(str(root)) and objects.local_path(str(root)) == root


@pytest.mark.parametrize("name", NAMES)
def test_a_relative_path_of_every_name_is_below_the_current_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = tmp_path / "home" if name == "~" else tmp_path / name
    assert objects.absolute(name) == str(objects.local_path(name)) == str(expected)

"""The artifact store on a local folder and on an object store in memory: whole writes, reads and listings."""

import threading

import pytest

from components.store import objects


def test_of_many_creators_one_wins(tmp_path):
    target, won = str(tmp_path / "lease"), []
    threads = [
        threading.Thread(target=lambda n=n: objects.create_bytes(target, bytes([n])) and won.append(n))
        for n in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and objects.read_bytes(target) == bytes(won)


def test_a_reader_sees_the_old_content_or_the_new(tmp_path):
    target, stop, seen = str(tmp_path / "file"), threading.Event(), set()
    objects.write_bytes(target, b"0" * 100_000)

    def read() -> None:
        while not stop.is_set():
            seen.add(objects.read_bytes(target))

    thread = threading.Thread(target=read)
    thread.start()
    for digit in b"123456789":
        objects.write_bytes(target, bytes([digit]) * 100_000)
    stop.set()
    thread.join()
    assert all(len(content) == 100_000 and len(set(content)) == 1 for content in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # no temporary file is left


def test_what_is_not_there(root):
    with pytest.raises(FileNotFoundError):
        objects.read_bytes(objects.join(root, "nothing"))
    assert objects.object_sizes(objects.join(root, "nothing")) == {}
    objects.delete(objects.join(root, "nothing"))


def test_a_range_and_a_look_tell_of_one_object(root):
    uri = objects.join(root, "a", "file")
    objects.write_bytes(uri, b"0123456789")
    assert objects.read_range(uri, 3, 6) == b"345"
    (listed,) = objects.list_objects(root)
    found = objects.stat_object(uri)
    assert (found.size, found.etag) == (10, listed.etag)
    for ask in (objects.stat_object, objects.read_bytes):
        with pytest.raises(FileNotFoundError):
            ask(objects.join(root, "nothing"))


def test_the_names_in_a_folder(root):
    for path in ("b/c/deep", "a/file", "file"):
        objects.write_bytes(objects.join(root, "top", path), b"")
    assert objects.names_in(objects.join(root, "top"), "directory") == ["a", "b"]
    assert objects.names_in(objects.join(root, "top"), "file") == ["file"]
    assert objects.names_in(objects.join(root, "nothing"), "directory") == []


def test_names_with_wildcards_name_themselves(root):
    for name in ("a*", "ab", "[a]b", "a?"):
        objects.write_bytes(objects.join(root, "odd", name), name.encode())
    objects.delete(objects.join(root, "odd", "a*"))
    assert objects.read_bytes(objects.join(root, "odd", "a?")) == b"a?"
    assert sorted(objects.object_sizes(objects.join(root, "odd"))) == ["[a]b", "a?", "ab"]


def test_a_remote_file_asks_for_what_is_read(monkeypatch):
    uri = "memory://ranges/file"
    objects.write_bytes(uri, bytes(range(200)))
    asked, read_range = [], objects.read_range
    monkeypatch.setattr(objects, "read_range", lambda uri, *range: asked.append(range) or read_range(uri, *range))
    with objects.open_object(uri) as file:
        assert (
            file.seek(-10, 2) == 190
            and file.read(4) == bytes(range(190, 194))
            and file.read() == bytes(range(194, 200))
        )
    assert asked == [(190, 194), (194, 200)]
    with objects.open_object(uri, read_ahead=150) as file:
        assert [file.read(2) for _ in range(3)] == [bytes([n, n + 1]) for n in (0, 2, 4)]
    assert asked[2:] == [(0, 150)]


def test_an_object_is_copied_inside_its_store(root, tmp_path):
    objects.write_bytes(f"{root}/a", b"content")
    objects.write_bytes(f"{root}/b/c", b"other")
    assert objects.copy_object(f"{root}/a", f"{root}/b/c") and objects.copy_object(f"{root}/a", f"{root}/a")
    assert objects.read_bytes(f"{root}/b/c") == objects.read_bytes(f"{root}/a") == b"content"
    objects.write_bytes(f"{root}/a", b"new")
    assert objects.read_bytes(f"{root}/b/c") == b"content"
    assert not objects.copy_object(f"{root}/missing", f"{root}/d") and "d" not in objects.object_sizes(root)
    assert not objects.copy_object(f"{root}/a", "memory://x/a" if root.startswith("/") else str(tmp_path / "x"))

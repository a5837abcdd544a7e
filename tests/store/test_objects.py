"""The artifact store on a local folder and on an object store in memory: whole writes, commits, and what is noticed."""

import hashlib
import threading
import uuid
from pathlib import Path

import pytest

from components.errors import StorageError
from components.store import commits, objects


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_a_saved_artifact_is_whole_and_its_digest_names_its_content(root):
    folder = objects.join(root, "artifact")
    contents = {"b.bin": b"two", "a/x.bin": b"one"}
    digest = commits.save_artifact(folder, contents, {"n": 2})
    lines = "".join(f"{path} {hashlib.sha256(contents[path]).hexdigest()}\n" for path in sorted(contents))
    assert digest == hashlib.sha256(lines.encode()).hexdigest()
    assert commits.artifact_faults(folder, digest) == [] and commits.read_manifest(folder)["facts"] == {"n": 2}


@pytest.mark.parametrize("harm", ["delete", "cut", "manifest", "other"])
def test_every_kind_of_damage_is_noticed(root, harm):
    folder = objects.join(root, "artifact")
    digest = commits.save_artifact(folder, {"a.bin": b"content"}, {})
    if harm == "delete":
        objects.delete(objects.join(folder, "a.bin"))
    elif harm == "cut":
        objects.write_bytes(objects.join(folder, "a.bin"), b"cont")
    elif harm == "manifest":
        objects.delete(objects.join(folder, commits.MANIFEST_FILE))
    else:
        commits.save_artifact(folder, {"a.bin": b"another"}, {})
    (fault,) = commits.artifact_faults(folder, digest)
    assert folder.removeprefix("memory://") in fault


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


def test_a_folder_that_cannot_be_written_is_told_with_a_cure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Check that the folder exists and is writable"):
        objects.check_writable(str(tmp_path / "file" / "below"))


def test_a_remote_artifact_is_copied_once_and_checked_by_digest(tmp_path):
    folder = f"memory://{uuid.uuid4().hex}"
    commits.save_artifact(folder, {"a/b.bin": b"1"}, {})
    first = commits.local_copy(folder, tmp_path)
    objects.delete(objects.join(folder, "a/b.bin"))
    assert commits.local_copy(folder, tmp_path) == first and (first / "a" / "b.bin").read_bytes() == b"1"


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


def test_a_file_is_read_piece_by_piece_and_checked_against_its_manifest(root):
    folder = objects.join(root, "artifact")
    commits.save_artifact(folder, {"a.bin": b"0123456789"}, {})
    with objects.open_object(objects.join(folder, "a.bin")) as file:
        assert file.read(2) == b"01" and file.seek(-3, 2) == 7 and file.read() == b"789"
    (line,) = commits.read_manifest(folder)["files"]
    commits.verify_file(folder, line)
    objects.write_bytes(objects.join(folder, "a.bin"), b"0123456780")
    with pytest.raises(StorageError, match=r"a\.bin .* is not the file that its manifest lists"):
        commits.verify_file(folder, line)

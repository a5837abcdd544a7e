"""Artifacts on a local folder and on an object store in memory: commits, and how damage is noticed."""

import hashlib
import uuid

import pytest

from components.errors import StorageError
from components.store import commits, objects
from tests.store.committed_files import stored_uri


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
        objects.delete(stored_uri(folder, "a.bin"))
    elif harm == "cut":
        objects.write_bytes(stored_uri(folder, "a.bin"), b"cont")
    elif harm == "manifest":
        objects.delete(objects.join(folder, commits.MANIFESTS_FOLDER))
    else:
        objects.delete(objects.join(folder, commits.MANIFESTS_FOLDER))
        commits.save_artifact(folder, {"a.bin": b"another"}, {})
    (fault,) = commits.artifact_faults(folder, digest)
    assert folder.removeprefix("memory://") in fault


def test_a_remote_artifact_is_copied_once_and_checked_by_digest(tmp_path):
    folder = f"memory://{uuid.uuid4().hex}"
    commits.save_artifact(folder, {"a/b.bin": b"1"}, {})
    first = commits.local_copy(folder, tmp_path)
    objects.delete(stored_uri(folder, "a/b.bin"))
    assert commits.local_copy(folder, tmp_path) == first and (first / "a" / "b.bin").read_bytes() == b"1"


def test_a_file_is_read_piece_by_piece_and_checked_against_its_manifest(root):
    folder = objects.join(root, "artifact")
    commits.save_artifact(folder, {"a.bin": b"0123456789"}, {})
    with objects.open_object(stored_uri(folder, "a.bin")) as file:
        assert file.read(2) == b"01" and file.seek(-3, 2) == 7 and file.read() == b"789"
    (line,) = commits.read_manifest(folder)["files"]
    commits.verify_file(folder, line)
    objects.write_bytes(stored_uri(folder, "a.bin"), b"0123456780")
    with pytest.raises(StorageError, match=r"a\.bin .* is not the file that its manifest lists"):
        commits.verify_file(folder, line)

"""Artifacts on a local folder and on an object store in memory: commits, and how damage is noticed."""

import hashlib
import json
import os
import uuid

import pytest

from components.errors import CommitConflict, StorageError
from components.store import commits, leftovers, objects
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


def test_a_stalled_writer_cannot_commit_over_its_successor(root):
    """A stalls between its check and its manifest, B takes over and commits, A wakes up with its smaller content."""
    folder = objects.join(root, "artifact")
    base = commits.head_number(folder)
    whole = commits.save_artifact(folder, {"a": b"1", "b": b"2"}, {}, attempt="000002-bbbbbbbb", base=base)
    with pytest.raises(CommitConflict, match=r"another run has committed .* nothing was overwritten"):
        commits.save_artifact(folder, {"a": b"0"}, {}, attempt="000001-aaaaaaaa", base=base)
    assert commits.read_manifest(folder)["digest"] == whole and commits.artifact_faults(folder, whole) == []


def test_equal_content_that_another_attempt_committed_counts_as_committed(root):
    folder = objects.join(root, "artifact")
    first = commits.save_artifact(folder, {"a": b"1"}, {}, attempt="000001-aaaaaaaa", base=0)
    assert commits.save_artifact(folder, {"a": b"1"}, {}, attempt="000002-bbbbbbbb", base=0) == first
    assert commits.head_number(folder) == 1


def test_a_number_that_was_swept_cannot_be_committed_again(root):
    folder = objects.join(root, "artifact")
    for number in range(1, 5):
        commits.save_artifact(folder, {"a": b"%d" % number}, {}, attempt=f"{number:06d}-aaaaaaaa")
    assert f"{commits.MANIFESTS_FOLDER}/000001.json" in leftovers.sweep(folder, "000004-aaaaaaaa", older_than=0)
    with pytest.raises(CommitConflict):
        commits.save_artifact(folder, {"a": b"late"}, {}, attempt="000001-bbbbbbbb", base=0)


def test_a_sweep_leaves_what_is_named_young_or_of_a_later_attempt(root):
    folder = objects.join(root, "artifact")
    for attempt in ("000001-aaaaaaaa", "000003-cccccccc"):
        objects.write_bytes(objects.join(folder, attempt, "unfinished"), b"x")
    commits.save_artifact(folder, {"a": b"1"}, {}, attempt="000002-bbbbbbbb")
    assert leftovers.sweep(folder, "000002-bbbbbbbb") == []  # nothing is a day old
    assert leftovers.sweep(folder, "000002-bbbbbbbb", older_than=0) == ["000001-aaaaaaaa/unfinished"]


@pytest.mark.parametrize("place", ["manifests", ".lease", "000002-bbbbbbbb"])
def test_a_sweep_removes_what_a_killed_writer_had_not_published(tmp_path, place):
    """Found by `make chaos`: the sweep read an empty temporary file beside the manifests as a manifest, and failed."""
    folder = str(tmp_path)
    left = tmp_path / place / ".000001.json.a_b1c2d3"
    left.parent.mkdir()
    left.touch()
    os.utime(left, (1, 1))
    commits.save_artifact(folder, {"a": b"1"}, {}, attempt="000002-bbbbbbbb")
    assert leftovers.sweep(folder, "000002-bbbbbbbb") == [f"{place}/{left.name}"]


def test_an_artifact_of_an_earlier_version_is_read_and_followed(tmp_path):
    entry = commits.file_entry("a", b"1")
    (tmp_path / "a").write_bytes(b"1")
    manifest = {"format": 1, "digest": commits.digest_of_files([entry]), "files": [vars(entry)], "facts": {"n": 1}}
    (tmp_path / commits.FORMER_MANIFEST).write_text(json.dumps(manifest))
    folder = str(tmp_path)
    assert commits.artifact_faults(folder, manifest["digest"]) == [] and commits.local_copy(folder) == tmp_path
    commits.save_artifact(folder, {"a": b"2"}, {})
    assert commits.head_number(folder) == 1 and (commits.local_copy(folder) / "a").read_bytes() == b"2"


def test_an_earlier_commit_is_found_by_its_digest(root):
    folder = objects.join(root, "artifact")
    first = commits.save_artifact(folder, {"a": b"1"}, {"n": 1})
    commits.save_artifact(folder, {"a": b"2"}, {"n": 2})
    assert commits.find_manifest(folder, first)["facts"] == {"n": 1} and commits.artifact_faults(folder, first) == []
    assert commits.find_manifest(folder, "0" * 64) is None

"""Inspection: which files are rejected, what fails the run, and the error texts."""

import pytest

from components.errors import StorageError, TooManyRejects
from components.images.rejects import Reject, check_reject_fraction, inspect_rows, rejects_table
from components.images.sources.registry import list_images


def test_only_the_bad_files_are_rejected(tree, settings):
    whole = (tree / "cat" / "01.png").read_bytes()
    (tree / "cat" / "text.jpg").write_text("not an image")
    (tree / "cat" / "cut.png").write_bytes(whole[:200])
    (tree / "dog" / "gone.png").symlink_to(tree / "nowhere.png")
    config = settings(uri=str(tree))
    rejects = inspect_rows(list_images(config, "unused").table, config).rejects
    assert {reject.key: reject.reason for reject in rejects} == {
        "cat/text.jpg": "not_an_image",
        "cat/cut.png": "truncated",
        "dog/gone.png": "missing",
    }


def test_a_failing_store_raises_instead_of_rejecting(tree, settings):
    config = settings(uri=str(tree))
    rows = list_images(config, "unused").table
    (tree / "cat" / "00.png").unlink()
    (tree / "cat" / "00.png").mkdir()  # reading it fails, but not because it is missing
    with pytest.raises(StorageError, match=r"cannot access .*00\.png"):
        inspect_rows(rows, config)


def test_a_file_changed_after_the_listing_fails_the_run(tree, settings):
    config = settings(uri=str(tree))
    rows = list_images(config, "unused").table
    (tree / "cat" / "00.png").write_bytes(b"other")
    with pytest.raises(StorageError, match="changed since the snapshot listed it: run again"):
        inspect_rows(rows, config)


def test_too_many_rejects_are_reported_by_reason():
    rejects = [Reject(f"k{number:02}", "u", "truncated" if number < 7 else "empty", "cut") for number in range(9)]
    check_reject_fraction(rejects, 900, 0.01)
    with pytest.raises(TooManyRejects, match=r"got 9 of 899:[^$]*7  truncated +k00: cut[^$]*2  empty +k07"):
        check_reject_fraction(rejects, 899, 0.01)


def test_the_rejects_table_is_sorted_and_may_be_empty():
    rows = [Reject("b", "u", "r", "e"), Reject("a", "u", "r", "e")]
    assert rejects_table(rows)["key"].to_pylist() == ["a", "b"]
    assert rejects_table([]).num_rows == 0 and rejects_table([]).schema == rejects_table(rows).schema

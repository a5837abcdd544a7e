"""Inspection reads what is new, once: compared with what lies on disk."""

import os

import pytest

from components.images import inspection
from components.images.commit import commit_snapshot
from components.images.inspection import InspectorHere, can_take_over, inspect_listing
from components.images.listing import content_of
from components.images.snapshot import open_snapshot
from components.images.sources.registry import list_images


class Recorder(InspectorHere):
    """Notes which images are read."""

    def __init__(self, config) -> None:
        super().__init__(config)
        self.keys: list[str] = []

    def submit(self, rows):
        self.keys += rows["key"].to_pylist()
        return super().submit(rows)


@pytest.fixture
def inspect(tree, settings, tmp_path):
    """inspect(earlier): (keys read, usable rows, rejects) of the images as they are; committed under `earlier`."""
    config = settings(uri=str(tree), held_out=0.3)

    def run(name, earlier=None):
        recorder = Recorder(config)
        known = open_snapshot(str(tmp_path / earlier)) if earlier else None
        usable, rejects, read = inspect_listing(list_images(config, "unused"), recorder, known)
        assert read == len(recorder.keys)
        commit_snapshot(str(tmp_path / name), usable, rejects, config, seed=0)
        return recorder.keys, usable.table, rejects

    return run


def test_contents_are_hashes_of_the_files(tree, inspect, monkeypatch):
    monkeypatch.setattr(inspection, "IMAGES_PER_TASK", 7)
    (tree / "cat" / "05.png").write_text("oops")
    keys, usable, rejects = inspect("first")
    assert len(keys) == 60 and [reject.key for reject in rejects] == ["cat/05.png"]
    assert usable["key"].to_pylist() == [key for key in keys if key != "cat/05.png"]
    assert usable["content"].to_pylist() == [content_of((tree / key).read_bytes()) for key in usable["key"].to_pylist()]


def test_only_new_changed_and_refused_images_are_read_again(tree, inspect):
    (tree / "dog" / "01.png").write_text("oops")
    inspect("first")
    (tree / "cat" / "00.png").write_bytes((tree / "dog" / "00.png").read_bytes())
    os.utime(tree / "cat" / "02.png", ns=(1, 1))
    (tree / "cat" / "07.png").rename(tree / "cat" / "new.png")
    keys, usable, _ = inspect("second", "first")
    assert keys == ["cat/00.png", "cat/02.png", "cat/new.png", "dog/01.png"]
    assert usable["content"].to_pylist() == [content_of((tree / key).read_bytes()) for key in usable["key"].to_pylist()]


def test_a_verdict_holds_for_equal_pixels_only(inspect, tmp_path, settings):
    inspect("first")
    earlier = open_snapshot(str(tmp_path / "first"))
    assert can_take_over(earlier, settings(held_out=0.5)) and not can_take_over(earlier, settings(image_size=32))


def test_a_listing_larger_than_a_table_is_inspected_in_order(tree, inspect, monkeypatch):
    monkeypatch.setattr("components.images.listing.ROWS_PER_TABLE", 16)
    monkeypatch.setattr(inspection, "IMAGES_PER_TASK", 5)
    keys, usable, _ = inspect("first")
    assert usable["key"].to_pylist() == keys == sorted(keys) and usable.num_rows == 60

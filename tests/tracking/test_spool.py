"""The spool: one owner, order, what is given up when it is full, and files of ended processes."""

import os

import pytest

from components.tracking import spool
from components.tracking.spool import Spool, SpoolBusy, new_spool, orphaned_spools


@pytest.fixture
def own(tmp_path):
    """A spool of this process."""
    made = new_spool(tmp_path)
    yield made
    made.close()


def put_metrics(own, run_id, steps):
    for step in steps:
        own.put(run_id, "metrics", {"step": step})


def test_a_spool_belongs_to_one_owner_until_it_is_closed(tmp_path):
    own = new_spool(tmp_path)
    own.put("r", "metrics", {"step": 1})
    assert list(orphaned_spools(tmp_path, ())) == []
    with pytest.raises(SpoolBusy):
        Spool(own.file)
    own.close()
    (orphan,) = orphaned_spools(tmp_path, ())
    assert orphan.count("r") == 1 and list(orphaned_spools(tmp_path, ())) == []
    orphan.remove(orphan.oldest())
    orphan.close()
    assert os.listdir(tmp_path) == []


def test_entries_come_out_by_run_and_kind_in_their_order(own):
    put_metrics(own, "a", [1])
    put_metrics(own, "b", [1])
    put_metrics(own, "a", [2])
    own.put("a", "document", {"name": "page.html"}, b"text")
    put_metrics(own, "a", [3])
    seen = []
    while entries := own.oldest():
        seen.append([(entry.run_id, entry.body.get("step"), entry.data) for entry in entries])
        own.remove(entries)
    assert seen == [[("a", 1, b""), ("a", 2, b"")], [("b", 1, b"")], [("a", None, b"text")], [("a", 3, b"")]]


def test_a_full_spool_gives_up_series_of_pictures_and_then_every_second_figure(own, monkeypatch):
    own.put("a", "picture", {"name": "look", "step": 1}, bytes(4000))
    own.put("a", "picture", {"name": "end", "step": None}, bytes(100))
    put_metrics(own, "a", range(1, 101))
    monkeypatch.setattr(spool, "MAX_SPOOL_BYTES", 2500)
    assert own.put("a", "metrics", {"step": 101}) == 1 + 51
    kinds = []
    while entries := own.oldest():
        kinds += [(entry.kind, entry.body["step"]) for entry in entries]
        own.remove(entries)
    assert kinds == [("picture", None), *(("metrics", step) for step in range(2, 101, 2))]


def test_a_damaged_file_is_left_alone(tmp_path):
    (tmp_path / "1.db").write_text("a text file of more than sixteen bytes is not a database" * 100)
    assert list(orphaned_spools(tmp_path, ())) == [] and (tmp_path / "1.db").exists()

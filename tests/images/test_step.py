"""The images step in this process and on Ray: inspected files and committed snapshots."""

from dataclasses import replace

import pytest

from components.errors import TooManyRejects
from components.images import inspection, step
from components.images.facts import SnapshotFacts
from components.images.rejects import REJECTS_FILE, inspect_rows
from components.images.snapshot import open_snapshot
from components.store import objects, parquet
from components.store.lease import acquire_lease
from components.workspace import Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """A workspace without a cluster."""
    lease = acquire_lease(str(tmp_path / "lease"), wait_seconds=0, report=print)
    return Workspace(name="images", fingerprint="f", uri=str(tmp_path / "artifact"), seed=7, lease=lease)


@pytest.fixture
def config(tree, settings):
    """A folder source with one unusable file."""
    (tree / "cat" / "text.png").write_text("not an image")
    return settings(uri=str(tree), held_out=0.3, max_rejects=0.1)


def test_a_snapshot_is_taken_without_a_cluster(config, workspace, monkeypatch, capsys):
    monkeypatch.setattr(inspection, "IMAGES_PER_TASK", 16)
    output = step.take_snapshot(config, workspace=workspace)
    assert isinstance(output.facts, SnapshotFacts) and (output.facts.images, output.facts.rejects) == (60, 1)
    assert open_snapshot(workspace.uri).digest == output.digest and output.pictures["images"].startswith(b"\x89PNG")
    rejects = parquet.from_bytes(objects.read_bytes(objects.join(workspace.attempt_folder, REJECTS_FILE)))
    assert rejects["key"].to_pylist() == ["cat/text.png"]
    printed = capsys.readouterr().out
    assert "61/61 files" in printed and "1 of 61 files cannot be used" in printed


def test_too_many_rejects_fail_the_step(config, workspace):
    with pytest.raises(TooManyRejects, match=r"got 1 of 61"):
        step.take_snapshot(replace(config, max_rejects=0.01), workspace=workspace)


def test_bundled_images_are_not_inspected_and_need_no_cluster(settings, workspace, monkeypatch):
    def refuse(*_):
        raise AssertionError("must not be called")

    monkeypatch.setattr(step, "inspect_rows", refuse)
    config = settings(source="digits", uri=None, channels=1)
    output = step.take_snapshot(config, workspace=replace(workspace, connect=refuse))
    assert output.facts.images == 1797 and output.facts.rejects == 0


@pytest.mark.ray
def test_ray_gives_the_same_snapshot(config, workspace, monkeypatch, tmp_path, local_ray):
    monkeypatch.setattr(inspection, "IMAGES_PER_TASK", 16)
    alone = step.take_snapshot(config, workspace=workspace)
    on_ray = replace(workspace, uri=str(tmp_path / "on-ray"), connect=lambda: local_ray)
    assert step.take_snapshot(config, workspace=on_ray).digest == alone.digest


def test_a_touched_and_moved_dataset_has_the_same_snapshot_and_only_what_is_new_is_read(
    tree, settings, workspace, monkeypatch, tmp_path, capsys
):
    def take(name, root):
        read = []
        monkeypatch.setattr(inspection, "inspect_rows", lambda rows, _: read.append(rows) or inspect_rows(rows, _))
        config = settings(uri=str(root), held_out=0.3)
        output = step.take_snapshot(config, workspace=replace(workspace, uri=str(tmp_path / "images" / name)))
        return output.digest, sum(rows.num_rows for rows in read)

    first, read = take("first", tree)
    assert read == 60 and take("again", tree) == (first, 0)
    assert "60 of 60 files are as an earlier snapshot read them" in capsys.readouterr().out
    for path in (tree / "cat").iterdir():
        path.touch()
    assert take("touched", tree) == (first, 30)
    tree.rename(tmp_path / "moved")
    assert take("moved", tmp_path / "moved") == (first, 60)
    (tmp_path / "moved" / "cat" / "00.png").write_bytes((tmp_path / "moved" / "dog" / "05.png").read_bytes())
    changed, read = take("changed", tmp_path / "moved")
    assert changed != first and read == 1


def test_without_inspection_nothing_is_read(config, workspace, monkeypatch):
    monkeypatch.setattr(inspection, "inspect_rows", lambda *_: pytest.fail("must not be read"))
    output = step.take_snapshot(replace(config, inspect=False), workspace=workspace)
    assert output.facts.images == 61 and next(open_snapshot(workspace.uri).waves(99))["content"].null_count > 60

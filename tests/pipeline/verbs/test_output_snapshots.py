"""Snapshots in the output of `encode`: reused, and removed once nothing needs them."""

import os
from pathlib import Path

import pytest

from components.codes.dataset import read_dataset
from components.images.config import ImagesConfig
from components.images.sources.registry import list_images
from components.progress import Progress
from components.store.lease import acquire_lease, keep_alive, lease_folder
from components.store.leftovers import SWEEP_AGE
from pipeline.verbs.output_snapshots import output_snapshot, sweep_output_snapshots
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.codes.jobs import run_encode_job


@pytest.fixture
def output(tmp_path):
    """Folder of an output."""
    return tmp_path / "output"


def snapshot_of(output, pictures, numbers):
    """The snapshot of a source with these pictures."""
    write_pictures(pictures, numbers)
    config = ImagesConfig(source="folder", uri=str(pictures), image_size=16, channels=1)
    return Path(output_snapshot(config, list_images(config, "", []), str(output), Progress()))


def age(folder, seconds=SWEEP_AGE + 60):
    """Let everything below `folder` be older."""
    for path in folder.rglob("*"):
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_old_snapshots_that_no_dataset_and_no_source_needs_are_removed(output, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    used = snapshot_of(output, tmp_path / "pictures", range(4))
    run_encode_job(str(output / "codes"), str(used), tokenizer_with_seed(tmp_path / "tokenizer", 0), None)
    replaced = snapshot_of(output, tmp_path / "pictures", range(5))
    killed = snapshot_of(output, tmp_path / "others", range(3))
    for manifest in killed.glob("manifests/*"):
        manifest.unlink()
    newest_of_others = snapshot_of(output, tmp_path / "others", range(4))
    age(output)
    newest = snapshot_of(output, tmp_path / "pictures", range(6))
    left = [used / "manifests" / ".000001.json.abcd1234", used / "000000-abcd1234" / "rows-of-a-loser.parquet"]
    left[1].parent.mkdir()
    for path in left:
        path.write_bytes(b"half")
    age(used)

    with keep_alive(acquire_lease(lease_folder(str(output / "other")), wait_seconds=0, report=print)):
        sweep_output_snapshots(str(output))  # its snapshot is not known yet
    assert replaced.exists() and killed.exists()
    sweep_output_snapshots(str(output))
    files = {path.parent.parent if path.parent.name == "manifests" else path for path in output.rglob("*.json")}
    assert files >= {used, newest_of_others, newest}
    assert not any(path.is_file() for old in (replaced, killed) for path in old.rglob("*")) and not any(
        path.exists() for path in left
    )
    assert read_dataset(str(output / "codes")).facts.snapshot_uri == str(used)


def test_a_snapshot_that_is_used_again_is_the_newest_of_its_source(output, tmp_path):
    first = snapshot_of(output, tmp_path / "pictures", range(4))
    snapshot_of(output, tmp_path / "pictures", range(4, 5))
    next((tmp_path / "pictures").rglob("0004.png")).unlink()
    age(output)
    assert snapshot_of(output, tmp_path / "pictures", range(0)) == first
    sweep_output_snapshots(str(output))
    assert (first / "manifests" / "000001.json").exists()

"""`verify --repair` beside other writers: it waits for their lease, and leaves what they have committed."""

from argparse import Namespace
from pathlib import Path

import pytest

from components.codes.dataset import CodeDataset, read_dataset
from components.codes.verify import check_dataset
from components.errors import LeaseHeld
from components.store.lease import acquire_lease, keep_alive, lease_folder
from pipeline.verbs import codes
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.codes.jobs import commit_images, run_encode_job


@pytest.fixture
def damaged(tmp_path) -> CodeDataset:
    """A dataset one of whose shards is missing."""
    (tmp_path / "tokenizer").mkdir()
    write_pictures(tmp_path / "pictures", range(12))
    snapshot = commit_images(str(tmp_path / "pictures"), str(tmp_path / "snapshot"))
    run_encode_job(str(tmp_path / "codes"), snapshot, tokenizer_with_seed(tmp_path / "tokenizer", 0), None)
    dataset = read_dataset(str(tmp_path / "codes"))
    Path(dataset.folder, dataset.shards[0].path).unlink()
    return dataset


def test_a_repair_waits_for_the_lease_that_a_run_holds(damaged, monkeypatch):
    monkeypatch.setattr(codes, "LEASE_WAIT_SECONDS", 0.1)
    with (
        keep_alive(acquire_lease(lease_folder(damaged.folder), wait_seconds=0, report=print)),
        pytest.raises(LeaseHeld, match="is held by"),
    ):
        codes.verify_datasets(Namespace(folder=damaged.folder, repair=True, overrides=[]))


def test_a_dataset_that_was_committed_since_is_not_repaired(damaged, tmp_path, capsys):
    faults = check_dataset(damaged)
    write_pictures(tmp_path / "pictures", range(12, 14))
    snapshot = commit_images(str(tmp_path / "pictures"), str(tmp_path / "grown"))
    run_encode_job(damaged.folder, snapshot, tokenizer_with_seed(tmp_path / "tokenizer", 0), None)
    grown = read_dataset(damaged.folder)
    codes._repair(damaged, faults, [])
    assert read_dataset(damaged.folder) == grown and grown.facts.rows == 14
    assert "committed again since it was read: nothing is repaired" in capsys.readouterr().out

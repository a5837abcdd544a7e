"""A state folder that was moved or copied: MLflow goes on with the files beside its database."""

import shutil

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from components.tracking.runs import Tracker
from tests.tracking.test_journal import png


@pytest.fixture
def old(tmp_path, mlflow_state):
    """A state folder with one run that has a picture."""
    (tmp_path / "old").mkdir()
    shutil.copy(mlflow_state / "mlflow.db", tmp_path / "old")
    tracker = Tracker(uri=None, name="moved", state=str(tmp_path / "old"))
    journal = tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}))
    journal.picture("look", png())
    journal.flush()
    tracker.close()
    return tmp_path / "old"


@pytest.mark.parametrize("both_exist", [False, True])
def test_files_of_runs_are_read_and_written_beside_the_database(old, tmp_path, both_exist):
    if both_exist:
        shutil.copytree(old, tmp_path / "new")
    else:
        old.rename(tmp_path / "new")
    before = sorted(old.rglob("*.png"))
    _artifact_repos_cache.clear()  # of MLflow: another process would have none
    tracker = Tracker(uri=None, name="moved", state=str(tmp_path / "new"))
    journal = tracker.run_journal("codes", "f", "parent")
    assert [file.path for file in tracker.client.list_artifacts(journal.run_id, "pictures")] == ["pictures/look.png"]
    journal.picture("again", png())
    journal.flush()
    fresh = tracker.run_journal("codes", "another", "parent")
    fresh.picture("fresh", png())
    fresh.flush()
    names = sorted(path.name for path in (tmp_path / "new").rglob("*.png"))
    assert names == ["again.png", "fresh.png", "look.png"]
    assert sorted(old.rglob("*.png")) == before and old.exists() == both_exist


def test_a_location_of_another_make_is_left_alone(old):
    tracker = Tracker(uri=None, name="moved", state=str(old))
    other = tracker.client.create_experiment("other", artifact_location="s3://bucket/mlflow-artifacts")
    again = Tracker(uri=None, name="moved", state=str(old))
    assert again.client.get_experiment(other).artifact_location == "s3://bucket/mlflow-artifacts"

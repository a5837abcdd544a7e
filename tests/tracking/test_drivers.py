"""Two drivers of one config share its parent run: the last one to leave ends it, a killed one does not keep it open."""

import pytest

from components.tracking import drivers
from components.tracking.runs import Tracker
from components.tracking.tags import DRIVER_TAG


@pytest.fixture
def connect(mlflow_state, request):
    """connect(): a tracker of the test's experiment, as another process would have it."""
    made = []

    def open_tracker():
        made.append(Tracker(uri=None, name=request.node.name, state=str(mlflow_state)))
        return made[-1]

    yield open_tracker
    for each in made:
        each.close()


def status(tracker, run_id):
    return tracker.client.get_run(run_id).info.status


def test_a_run_in_which_another_driver_works_stays_open(connect, monkeypatch):
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 0.05)
    first, second = connect(), connect()
    run_id = first.pipeline_run("p", {})
    assert second.pipeline_run("p", {}) == run_id
    first.close_pipeline_run(run_id, succeeded=True)
    assert status(second, run_id) == "RUNNING"
    second.close_pipeline_run(run_id, succeeded=False)
    run = second.client.get_run(run_id)
    assert run.info.status == "FINISHED"  # the first made everything
    assert not [tag for tag in run.data.tags if tag.startswith(DRIVER_TAG)]


def test_a_failed_driver_does_not_mark_the_run_of_a_working_one(connect):
    first, second = connect(), connect()
    run_id = first.pipeline_run("p", {})
    second.pipeline_run("p", {})
    second.close_pipeline_run(run_id, succeeded=False)
    assert status(first, run_id) == "RUNNING"
    first.close_pipeline_run(run_id, succeeded=False)
    assert status(first, run_id) == "FAILED"


def test_a_killed_driver_does_not_keep_the_run_open(connect, monkeypatch):
    monkeypatch.setattr(drivers, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(drivers, "DEAD_SECONDS", 0.5)
    tracker = connect()
    run_id = tracker.pipeline_run("p", {})
    tracker.client.set_tag(run_id, DRIVER_TAG + "killed", "host, sign of life 7")
    tracker.close_pipeline_run(run_id, succeeded=True)
    assert status(tracker, run_id) == "FINISHED"


def test_a_pipeline_run_created_without_an_answer_is_deleted(connect):
    tracker = connect()
    run_id = tracker.pipeline_run("p", {})
    tags = {DRIVER_TAG + tracker._driver: "starting"}
    unanswered = tracker.client.create_run(tracker.experiment_id, tags=tags).info.run_id
    tracker.close_pipeline_run(run_id, succeeded=False)
    lifecycles = [tracker.client.get_run(each).info.lifecycle_stage for each in (run_id, unanswered)]
    assert lifecycles == ["active", "deleted"]

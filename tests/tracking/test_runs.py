"""Runs: what a step logs, which run a step continues, and that reading creates nothing."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.artifacts import Artifact
from components.errors import DeletedRecord, UnknownModel
from components.tracking.runs import ERROR_TAG, Tracker


def test_two_pipelines_in_one_process_use_separate_stores(mlflow_state, tmp_path):
    first, second = (Tracker(uri=None, name="x", state=str(folder)) for folder in (mlflow_state, tmp_path))
    second.pipeline_run("p", {})
    assert first.uri != second.uri and first.client.get_experiment_by_name("x") is None


def test_reading_creates_no_experiment(tracker):
    assert tracker.runs_of("f" * 64) == [] and tracker.committed("f" * 64) is None and tracker.newest("codes") is None
    assert tracker.client.get_experiment_by_name(tracker.name) is None


def test_metrics_logged_twice_are_stored_once(tracker):
    journal = tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}))
    for update in (1, 2, 2, 1):
        journal.metrics(update, {"loss": float(update)})
    journal.flush()
    resumed = tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}))
    resumed.metrics(2, {"loss": 9.0, "other": 1.0})
    resumed.metrics(3, {"loss": 3.0})
    resumed.flush()
    history = tracker.client.get_metric_history(journal.run_id, "loss")
    assert resumed.run_id == journal.run_id
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_steps_at_the_same_time_may_log_the_same_inputs(tracker):
    inputs = [Artifact(kind=f"codes{n}", uri="u", digest=f"{n}", fingerprint="f", run_id="r") for n in range(10)]
    parent = tracker.pipeline_run("p", {})
    journals = [tracker.run_journal("prior", f"f{number}", parent) for number in range(6)]
    with ThreadPoolExecutor(len(journals)) as pool:
        list(pool.map(lambda journal: journal.inputs(inputs), journals))
    for journal in journals:
        journal.flush()
        assert len(tracker.client.get_run(journal.run_id).inputs.dataset_inputs) == len(inputs)


def test_parameters_are_stored_once_and_cut(tracker):
    journal = tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}))
    journal.parameters({"long": "x" * 9000, "none": None} | {f"p{number}": number for number in range(150)})
    journal.parameters({"long": "another"})
    journal.flush()
    stored = tracker.client.get_run(journal.run_id).data.params
    assert len(stored) == 152 and stored["long"] == "x" * 6000 and stored["none"] == "None"


def test_the_newest_artifact_of_a_fingerprint_is_found(tracker):
    made = []
    for digest in ("one", "two"):
        journal = tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}))
        made.append(Artifact(kind="codes", uri="u", digest=digest, fingerprint="f", run_id=journal.run_id))
        journal.finish(made[-1])
    assert tracker.committed("f") == made[1] and tracker.newest("codes").info.run_id == made[1].run_id
    assert tracker.made_by(made[0].run_id) == made[0]


def test_a_run_link_has_no_password(tracker):
    run = tracker.pipeline_run("p", {})
    tracker.server.uri = "https://me:secret@host/mlflow/"
    assert tracker.run_link(run) == f"https://host/mlflow/#/experiments/{tracker.experiment_id}/runs/{run}"


def test_a_missing_run_is_reported(tracker):
    with pytest.raises(UnknownModel, match="has no run"):
        tracker.made_by("0" * 32)


def test_a_run_without_an_artifact_made_nothing(tracker):
    with pytest.raises(UnknownModel, match="must be a step's run with an artifact"):
        tracker.made_by(tracker.pipeline_run("p", {}))


def test_a_failed_step_continues_its_run_without_the_error(tracker):
    parent = tracker.pipeline_run("p", {})
    failed = tracker.run_journal("codes", "f", parent)
    failed.fail("e" * 9000)
    run = tracker.client.get_run(failed.run_id)
    assert run.info.status == "FAILED" and run.data.tags[ERROR_TAG] == "e" * 2000
    assert tracker.run_journal("codes", "f", parent).run_id == failed.run_id
    run = tracker.client.get_run(failed.run_id)
    assert run.info.status == "RUNNING" and ERROR_TAG not in run.data.tags


def test_only_a_failed_pipeline_run_is_continued(tracker):
    first = tracker.pipeline_run("p", {"seed": 1})
    tracker.close_pipeline_run(first, succeeded=False)
    assert tracker.client.get_run(first).info.status == "FAILED" and tracker.pipeline_run("p", {}) == first
    tracker.close_pipeline_run(first, succeeded=True)
    ended = tracker.client.get_run(first)
    assert ended.info.status == "FINISHED" and ended.info.end_time and ended.data.params == {"seed": "1"}
    assert tracker.pipeline_run("p", {}) != first


def test_ancestry_lists_each_run_once(tracker):
    parent, artifacts = tracker.pipeline_run("p", {}), {}
    for step, inputs in {"images": [], "tokenizer": ["images"], "codes": ["images", "tokenizer"]}.items():
        journal = tracker.run_journal(step, step, parent)
        journal.inputs([artifacts[name] for name in inputs])
        journal.flush()
        artifacts[step] = Artifact(kind=step, uri="u", digest=step, fingerprint=step, run_id=journal.run_id)
    line = [(depth, run.data.tags["vqvae2.step"]) for depth, run in tracker.ancestry(artifacts["codes"].run_id)]
    assert line == [(0, "codes"), (1, "images"), (1, "tokenizer")]


def test_gates_are_stored_with_the_run(tracker):
    run = tracker.pipeline_run("p", {})
    assert tracker.gates(run) is None
    tracker.record_gates(run, "passed")
    assert tracker.gates(run) == "passed"


def test_a_deleted_experiment_is_named_with_its_cure(tracker):
    journal = tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}))
    number = tracker.experiment_id
    tracker.client.delete_experiment(number)
    cure = (
        rf"experiment '{re.escape(tracker.name)}' was deleted: .* mlflow experiments restore --experiment-id {number}"
    )
    with pytest.raises(DeletedRecord, match=cure):
        Tracker(uri=tracker.uri, name=tracker.name, state="unused")
    with pytest.raises(DeletedRecord, match=cure):
        journal.finish(Artifact(kind="codes", uri="u", digest="d", fingerprint="f", run_id=journal.run_id))
    with pytest.raises(DeletedRecord, match=r"experiments restore|was deleted"):
        tracker.run_journal("codes", "another", "parent")


def test_a_second_driver_finds_what_the_first_one_made_in_a_new_experiment(tracker):
    other = Tracker(uri=tracker.uri, name=tracker.name, state="unused")
    journal = tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}))
    made = Artifact(kind="codes", uri="u", digest="d", fingerprint="f", run_id=journal.run_id)
    journal.finish(made)
    assert other.committed("f") == made

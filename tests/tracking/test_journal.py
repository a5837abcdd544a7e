"""What a step writes while MLflow is away: nothing waits, nothing fails, nothing is missing or doubled afterwards."""

import io
import shutil
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from components.artifacts import Artifact
from components.errors import DeletedRecord, LeaseLost, TrackingError
from components.tracking import sender
from components.tracking.runs import ARTIFACT_TAG, ERROR_TAG
from components.tracking.spool import Spool, orphaned_spools

ARTIFACT = Artifact(kind="codes", uri="u", digest="d", fingerprint="f", run_id="r")


def png():
    data = io.BytesIO()
    Image.new("L", (2, 2)).save(data, "PNG")
    return data.getvalue()


def history(tracker, run_id, key="loss"):
    """(update, value) of one metric in the order of updates."""
    return sorted((metric.step, metric.value) for metric in tracker.client.get_metric_history(run_id, key))


def write(journal, updates):
    for update in updates:
        journal.metrics(update, {"loss": float(update)})


def open_journal(tracker, check=lambda: None):
    return tracker.run_journal("codes", "f", tracker.pipeline_run("p", {}), check)


@pytest.mark.parametrize(("fault", "seconds"), [("503", "20"), ("silent", "3")])
def test_figures_wait_for_the_server_and_the_step_does_not(remote, away, said, monkeypatch, fault, seconds):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", seconds)
    tracker = remote()
    journal = open_journal(tracker)
    away.fault = fault
    write(journal, range(1, 201))  # would never return if it waited
    journal.picture("look", png(), step=200)
    journal.document("page.html", "text")
    threading.Timer(1.5, lambda: setattr(away, "fault", "")).start()
    journal.finish(ARTIFACT)
    assert history(tracker, journal.run_id) == [(update, float(update)) for update in range(1, 201)]
    assert len(tracker.client.list_artifacts(journal.run_id, "images")) == 2
    assert [line.split(" ")[1] for line in said] == ["at", "answers"] and "figures are kept in" in said[0]
    assert tracker.client.get_run(journal.run_id).data.tags[ARTIFACT_TAG] == ARTIFACT.to_json()


def test_what_a_killed_process_could_not_send_is_sent_by_the_next_one_before_its_own(remote, away, tmp_path):
    first = remote()
    run_id = open_journal(first).run_id
    script = (
        "import os, sys; from components.tracking.runs import Tracker\n"
        "tracker = Tracker(uri=sys.argv[1], name=sys.argv[2], state=sys.argv[3], patience=30)\n"
        "journal = tracker.run_journal('codes', 'f', 'parent')\n"
        "journal.metrics(0, {'loss': 0.0}); journal.flush()\n"
        "input('opened')\n"
        "for update in range(1, 6): journal.metrics(update, {'loss': float(update)})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, away.uri, first.name, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout.read(6) == "opened"
        (folder,) = (tmp_path / "unsent").iterdir()
        assert len(list(folder.glob("*.db"))) == 2 and list(orphaned_spools(folder, ())) == []  # both are at work
        away.fault = "503"
        killed.communicate("\n")
    away.fault = ""
    second = remote()
    journal = open_journal(second)
    assert journal.run_id == run_id and history(second, run_id) == [(update, float(update)) for update in range(6)]
    write(journal, range(4, 8))
    journal.flush()
    assert history(second, run_id) == [(update, float(update)) for update in range(8)]
    second.close()
    first.close()
    assert list((tmp_path / "unsent").rglob("*.db*")) == []


def test_entries_sent_but_not_forgotten_are_not_doubled(remote, away, monkeypatch):
    """As after a kill between the answer and the removal."""
    tracker = remote()
    journal = open_journal(tracker)
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "remove", lambda self, entries: None)
        write(journal, [1])
        journal.picture("look", png(), step=1)
        for _ in range(100):
            if history(tracker, journal.run_id):
                break
            time.sleep(0.05)
        time.sleep(0.3)  # it is sent again and again
    journal.flush()
    assert history(tracker, journal.run_id) == [(1, 1.0)]
    assert len(tracker.client.list_artifacts(journal.run_id, "images")) == 2


def test_a_step_that_cannot_be_recorded_keeps_its_figures_for_the_next_try(remote, away, monkeypatch):
    impatient = remote(patience=0.2)
    journal = open_journal(impatient)
    monkeypatch.setattr(sender, "ANSWER_SECONDS", 0.2)
    away.fault = "503"
    write(journal, [1])
    with pytest.raises(TrackingError, match=r"1 entries could not be sent .* run again when it answers"):
        journal.finish(ARTIFACT)
    impatient.close()
    away.fault = ""
    monkeypatch.undo()
    journal = open_journal(remote())
    assert journal.run_id and history(impatient, journal.run_id) == [(1, 1.0)]
    journal.finish(ARTIFACT)
    assert impatient.committed("f") == ARTIFACT


def test_of_many_entries_only_the_one_that_mlflow_refuses_is_dropped(remote, away, said):
    tracker = remote()
    journal = open_journal(tracker)
    away.fault = "503"
    write(journal, [1])
    journal.metrics(1, {"not a name!": 1.0})
    write(journal, [2])
    away.fault = ""
    journal.flush()
    assert history(tracker, journal.run_id) == [(1, 1.0), (2, 2.0)]
    assert sum("is dropped" in line for line in said) == 1


def test_an_entry_that_alone_gets_no_answer_does_not_hold_up_the_others_for_ever(remote, away, said):
    tracker = remote(patience=0.3)
    journal = open_journal(tracker)
    away.fault, away.only = "500", "mlflow-artifacts"
    journal.document("page.html", "text")
    write(journal, [1])
    journal.flush()
    assert history(tracker, journal.run_id) == [(1, 1.0)] and any("document entry" in line for line in said)


def test_a_run_deleted_meanwhile_is_named_with_its_cure(remote, said):
    tracker = remote()
    journal = open_journal(tracker)
    tracker.client.delete_run(journal.run_id)
    write(journal, range(1, 50))
    with pytest.raises(DeletedRecord, match=rf"MLFLOW_TRACKING_URI=\S+ mlflow runs restore --run-id {journal.run_id}"):
        journal.finish(ARTIFACT)
    assert sum("entries of figures are dropped" in line for line in said) == 1
    assert open_journal(tracker).run_id != journal.run_id


def test_refused_credentials_fail_the_record_at_once_and_keep_the_figures(remote, away):
    tracker = remote(patience=3600.0)
    journal = open_journal(tracker)
    away.fault = "403"
    write(journal, [1])
    with pytest.raises(TrackingError, match="403"):
        journal.finish(ARTIFACT)
    away.fault = ""
    write(journal, [2])
    for _ in range(100):
        if len(history(tracker, journal.run_id)) == 2:
            break
        time.sleep(0.05)
    assert history(tracker, journal.run_id) == [(1, 1.0), (2, 2.0)]


def test_a_driver_that_lost_its_lease_writes_nothing_more(remote, away, monkeypatch):
    monkeypatch.setattr(sender, "TIME_TO_LIVE", -1.0)  # every entry is old enough to ask
    lost = threading.Event()

    def check():
        if lost.is_set():
            raise LeaseLost("taken over")

    tracker = remote()
    journal = open_journal(tracker, check)
    write(journal, [1])
    journal.flush()
    lost.set()
    write(journal, [2])
    with pytest.raises(LeaseLost):
        journal.finish(ARTIFACT)
    journal.fail("reason")
    tracker.close()
    run = tracker.client.get_run(journal.run_id)
    assert history(tracker, journal.run_id) == [(1, 1.0)] and ERROR_TAG not in run.data.tags
    assert ARTIFACT_TAG not in run.data.tags and run.info.status == "RUNNING"


def test_a_run_created_without_an_answer_leaves_no_second_run(remote, away):
    tracker = remote()
    parent = tracker.pipeline_run("p", {})
    away.fault, away.only = "lost", "runs/create"
    threading.Timer(1.0, lambda: setattr(away, "fault", "")).start()
    journal = tracker.run_journal("codes", "f", parent)
    journal.parameters({"a": 1})
    journal.finish(ARTIFACT)
    assert [run.info.run_id for run in tracker.runs_of("f")] == [journal.run_id]


def test_a_state_folder_that_keeps_nothing_costs_figures_and_no_step(remote, said, tmp_path):
    tracker = remote(state=tmp_path / "state")
    journal = open_journal(tracker)
    journal.flush()
    tracker.close()
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("not a folder")
    write(journal, [1, 2])
    assert sum("cannot be kept" in line for line in said) == 1


def test_a_new_step_does_not_wait_for_the_figures_of_the_steps_beside_it(remote, away):
    tracker = remote()
    busy, stop = open_journal(tracker), threading.Event()

    def write_on():
        update = 0
        while not stop.wait(0.001):
            update += 1
            busy.metrics(update, {"loss": 1.0})

    writer = threading.Thread(target=write_on)
    writer.start()
    beside = tracker.run_journal("judge", "g", "parent")
    stop.set()
    writer.join()
    busy.flush()
    assert beside.run_id != busy.run_id

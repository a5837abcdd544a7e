"""Steps of a run whose MLflow goes away at one moment: the same records as ever, and one line about it."""

import dataclasses
import threading
import time

import pytest

from components.progress import Progress
from components.workspace import StepOutput
from pipeline.session import Session
from tests.pipeline.conftest import FACTS

UPDATES = list(range(1, 31))


class Said(Progress):
    """Keeps the lines."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, message):
        self.lines.append(message)


@pytest.fixture
def go_away(away, monkeypatch):
    """go_away(session): the server answers 503 until the session has noticed."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", away.uri)

    def come_back(session):
        while not session.tracker.server.outage.lasts:
            time.sleep(0.02)
        away.fault = ""

    def go(session):
        away.fault = "503"
        threading.Thread(target=come_back, args=(session,), daemon=True).start()

    return go


def make(session, name, folder, in_work=lambda session: None, at_end=lambda session: None):
    """Run a step that writes figures and commits the files of `folder`."""

    def work(inputs, space):
        in_work(session)
        for update in UPDATES:
            space.journal.metrics(update, {"loss": float(update)})
        contents = {file.name: file.read_bytes() for file in folder.iterdir()}
        digest = space.save(contents, FACTS[name])
        at_end(session)
        return StepOutput(digest=digest, facts=FACTS[name])

    return session.run_step(dataclasses.replace(session.steps[name], work=work, package=None))


@pytest.mark.parametrize("moment", ["before the first run", "in the work", "at its end"])
def test_mlflow_away_for_a_moment(config, go_away, generator_folders, moment):
    progress = Said()
    session = Session(config, progress)
    assert session.tracker.uri.startswith("http")
    if moment == "before the first run":
        go_away(session)
    moments = {"in the work": {"in_work": go_away}, "at its end": {"at_end": go_away}}
    artifact = make(session, "images", generator_folders["classifier"], **moments.get(moment, {})).artifact
    session.close(True)
    store = session.tracker.client
    run = store.get_run(artifact.run_id)
    assert [metric.step for metric in store.get_metric_history(artifact.run_id, "loss")] == UPDATES
    assert run.info.status == "FINISHED" and run.data.tags["vqvae2.artifact"] == artifact.to_json()
    assert store.get_run(session.memo.pipeline_run()).info.status == "FINISHED"
    assert [line.split(" ")[1] for line in progress.lines if line.startswith("MLflow")] == ["at", "answers"]

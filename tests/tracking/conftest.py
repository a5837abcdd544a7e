"""A tracker on a local database, and one on an MLflow server that a test can take away."""

import pytest
from mlflow import MlflowClient

from components.tracking import sender, server
from components.tracking.runs import Tracker
from tests.tracking.mlflow_in_process import faulty_mlflow


@pytest.fixture(autouse=True)
def without_server(monkeypatch):
    """No test uses a server named in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def tracker(mlflow_state, request):
    """A tracker whose experiment has the name of the test."""
    made = Tracker(uri=None, name=request.node.name, state=str(mlflow_state))
    yield made
    made.close()


@pytest.fixture(scope="session")
def mlflow_in_process(tmp_path_factory):
    """MLflow's server in this process."""
    with faulty_mlflow(tmp_path_factory.mktemp("mlflow")) as running:
        MlflowClient(running.uri).search_experiments()  # makes the database
        yield running


@pytest.fixture
def away(mlflow_in_process, monkeypatch):
    """That server, for a test that sets `away.fault`; everybody is quick to try again."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for module in (server, sender):
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
        monkeypatch.setattr(module, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.0)
    yield mlflow_in_process
    mlflow_in_process.fault = mlflow_in_process.only = ""


@pytest.fixture
def said():
    """The lines that were said to a person."""
    return []


@pytest.fixture
def remote(away, said, tmp_path, request):
    """remote(patience): a tracker on that server, as a new process would make it; its state is the test's folder."""
    made = []

    def connect(patience=30.0, state=tmp_path):
        made.append(Tracker(uri=away.uri, name=request.node.name, state=str(state), patience=patience, say=said.append))
        return made[-1]

    yield connect
    away.fault = ""
    for each in made:
        each.close()

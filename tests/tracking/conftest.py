"""A tracker on a local database, and one on an MLflow server that a test can take away."""

import pytest

from components.tracking.runs import Tracker


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

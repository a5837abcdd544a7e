"""A tracker on a local database, for the tests of runs and registry."""

import pytest

from components.tracking.runs import Tracker


@pytest.fixture(autouse=True)
def without_server(monkeypatch):
    """No test uses a server named in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def tracker(mlflow_state, request):
    """A tracker whose experiment has the name of the test."""
    return Tracker(uri=None, name=request.node.name, state=str(mlflow_state))

"""A plugin: MLflow's own server application on a real socket of this process, with faults that a test switches on."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from components.tracking.server import default_store

SETTINGS = {
    "_MLFLOW_SERVER_FILE_STORE": "sqlite:///{folder}/server.db",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "{folder}/files",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
}


class FaultyMlflow:
    """A WSGI application: MLflow's, or what `fault` says."""

    def __init__(self, application: Callable[..., Any]) -> None:
        self._application = application
        self.uri = ""
        self.fault = ""
        """Empty: none; 403 or 503: the status of every answer; silent: no answer; lost: the work without the answer."""
        self.only = ""
        """Part of the paths that have the fault; empty: all."""
        self._released = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer one request."""
        if not self.fault or self.only not in environ["PATH_INFO"]:
            return self._application(environ, start_response)
        if self.fault == "lost":
            b"".join(self._application(environ, lambda *_: None))
        if self.fault in ("silent", "lost"):
            self._released.wait(60)
            return []
        start_response(f"{self.fault} as the test asked", [("Content-Length", "0")])
        return []

    def release(self) -> None:
        """Let requests end that were never answered."""
        self._released.set()


@contextlib.contextmanager
def faulty_mlflow(folder: Path) -> Iterator[FaultyMlflow]:
    """A running server with its database and files in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value.format(folder=folder))
        from mlflow.server import app

        faulty = FaultyMlflow(app)
        server = make_server("127.0.0.1", 0, faulty, threaded=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        faulty.uri = f"http://127.0.0.1:{server.server_port}"
        try:
            yield faulty
        finally:
            faulty.release()
            server.shutdown()
            server.server_close()


@pytest.fixture(scope="session")
def mlflow_in_process(tmp_path_factory):
    """MLflow's server in this process."""
    from mlflow import MlflowClient

    with faulty_mlflow(tmp_path_factory.mktemp("mlflow")) as running:
        with default_store(running.uri):  # the server makes its database this process's store
            MlflowClient(running.uri).search_experiments()
        yield running


@pytest.fixture
def away(mlflow_in_process, monkeypatch):
    """That server, for a test that sets `away.fault`; everybody is quick to try again."""
    from components.tracking import sender, server

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for module in (server, sender):
        monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
        monkeypatch.setattr(module, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.0)
    yield mlflow_in_process
    mlflow_in_process.fault = mlflow_in_process.only = ""

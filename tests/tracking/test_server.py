"""The tracking server: its address, errors when it does not answer, hidden passwords, MLflow's default store."""

import http.server
import os
import socket
import threading
import time

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST

from components.errors import TrackingError, UnknownModel
from components.tracking.server import (
    LOCAL_UI,
    TrackingServer,
    check_reachable,
    default_store,
    has_been_used,
    sqlite_file,
    tracking_uri,
    without_password,
)


@pytest.fixture
def serve():
    """serve(status): URL of an HTTP server that answers every request with this status."""
    servers = []

    def start(status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                return

        servers.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://me:secret@127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(mlflow_state):
    """A connection to a local database."""
    return TrackingServer(tracking_uri(str(mlflow_state)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@word@host:5432/db", "postgresql://***@host:5432/db"),
        ("http://token@host/path?x=a@b", "http://***@host/path?x=a@b"),
        ("cannot open postgresql://me:secret@host/db: no", "cannot open postgresql://***@host/db: no"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_passwords_are_masked(text, shown):
    assert without_password(text) == shown


def test_a_stopped_server_is_reported_quickly():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(
        TrackingError, match=rf"http://\*\*\*@127.0.0.1:{port} does not answer: .*refused.*Start it"
    ) as caught:
        TrackingServer(f"http://me:secret@127.0.0.1:{port}")
    assert time.monotonic() - started < 5 and "secret" not in str(caught.value)


def test_a_silent_server_is_reported_quickly():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TrackingError, match="timed out"):
        check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)


def test_a_broken_server_is_reported(serve):
    with pytest.raises(TrackingError, match="HTTP Error 503"):
        check_reachable(serve(503))


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_answers_is_reachable(serve, status):
    check_reachable(serve(status))


@pytest.mark.parametrize("content", [None, "a text file of more than sixteen bytes is not a database"])
def test_a_database_that_cannot_be_opened_is_reported(tmp_path, content):
    (tmp_path / "mlflow.db").mkdir() if content is None else (tmp_path / "mlflow.db").write_text(content)
    with pytest.raises(TrackingError, match=r"does not answer: .*(unable to open database file|is not a database)"):
        TrackingServer(tracking_uri(str(tmp_path)))


def test_a_stopped_database_server_is_reported_without_its_password():
    with pytest.raises(
        TrackingError, match=r"postgresql\+psycopg2://\*\*\*@127.0.0.1:9/x does not answer: .*refused"
    ) as caught:
        check_reachable("postgresql+psycopg2://me:secret@127.0.0.1:9/x")
    assert "secret" not in str(caught.value)


def test_a_database_without_a_driver_is_reported():
    with pytest.raises(TrackingError, match=r"needs a database driver .* as in postgresql.psycopg2://"):
        check_reachable("postgresql+pg8000://me:secret@127.0.0.1:9/x")


def test_the_store_is_named_by_the_environment_or_is_sqlite_in_the_state_folder(monkeypatch, tmp_path):
    assert tracking_uri(str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    assert sqlite_file(tracking_uri(str(tmp_path))) == tmp_path / "mlflow.db"
    assert not has_been_used(tracking_uri(str(tmp_path)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_uri(str(tmp_path)) == "http://host:5000" and has_been_used("http://host:5000")
    assert sqlite_file("http://host:5000") is None


@pytest.mark.parametrize("outside", [None, "http://host:5000"])
def test_the_default_store_is_restored(monkeypatch, tmp_path, outside):
    if outside:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", outside)
    with default_store(f"sqlite:///{tmp_path}/mlflow.db"):
        assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert os.environ.get("MLFLOW_TRACKING_URI") == outside


def test_only_a_missing_resource_is_an_unknown_model(server):
    for code, expected in ((INTERNAL_ERROR, TrackingError), (RESOURCE_DOES_NOT_EXIST, UnknownModel)):
        with pytest.raises(expected, match="run x: reason"), server.looking_up("run x"):
            raise MlflowException("reason", error_code=code)
    assert not issubclass(UnknownModel, TrackingError)


def test_only_connection_errors_are_translated(server):
    with pytest.raises(TrackingError, match="does not answer: reason"), server.translate_errors():
        raise MlflowException("reason\nmore")
    with pytest.raises(ValueError, match="bug"), server.translate_errors():
        raise ValueError("bug")


def test_a_database_has_the_address_of_a_local_ui(server):
    assert server.ui_address == LOCAL_UI
    server.uri = "https://me:secret@host/mlflow/"
    assert server.ui_address == "https://host/mlflow"


def test_models_with_pickles_are_refused():
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"

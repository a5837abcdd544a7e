"""MLflow: what is told when it does not answer, what is kept, and that looking makes nothing."""

import http.server
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.artifacts import Artifact
from components.errors import TrackingError, UnknownModel
from components.tracking.runs import Tracker, check_reachable, has_been_used, tracking_uri, without_password


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch):
    """No test talks to a server that the surroundings name."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def tracker(mlflow_state, request):
    """A tracker with an experiment of this test's own."""
    return Tracker(uri=None, name=request.node.name, state=str(mlflow_state))


@pytest.fixture
def server():
    """server(status): URL of an HTTP server that answers everything with this status."""
    running = []

    def start(status):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                return

        running.append(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://me:secret@127.0.0.1:{running[-1].server_port}"

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


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


def test_a_server_that_is_not_there_is_told_quickly(mlflow_state):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(
        TrackingError, match=rf"http://\*\*\*@127.0.0.1:{port} does not answer: .*refused.*Start it"
    ) as caught:
        Tracker(uri=f"http://me:secret@127.0.0.1:{port}", name="x", state=str(mlflow_state))
    assert time.monotonic() - started < 5 and "secret" not in str(caught.value)


def test_a_server_that_is_silent_is_told_quickly():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TrackingError, match="timed out"):
        check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.3)


def test_a_server_that_is_broken_is_told(server):
    with pytest.raises(TrackingError, match="HTTP Error 503"):
        check_reachable(server(503))


@pytest.mark.parametrize("status", [200, 401, 404])
def test_a_server_that_answers_is_reachable(server, status):
    check_reachable(server(status))


@pytest.mark.parametrize("content", [None, "this is no database, it is much too talkative for one"])
def test_a_database_that_cannot_be_opened_is_told_quickly(tmp_path, content):
    (tmp_path / "mlflow.db").mkdir() if content is None else (tmp_path / "mlflow.db").write_text(content)
    with pytest.raises(TrackingError, match=r"does not answer: .*(unable to open database file|is not a database)"):
        Tracker(uri=None, name="x", state=str(tmp_path))


def test_a_database_server_that_is_not_there_is_told_without_its_password():
    with pytest.raises(
        TrackingError, match=r"postgresql\+psycopg2://\*\*\*@127.0.0.1:9/x does not answer: .*refused"
    ) as caught:
        check_reachable("postgresql+psycopg2://me:secret@127.0.0.1:9/x")
    assert "secret" not in str(caught.value)


def test_a_database_without_a_driver_is_told():
    with pytest.raises(TrackingError, match=r"needs a database driver .* as in postgresql.psycopg2://"):
        check_reachable("postgresql+pg8000://me:secret@127.0.0.1:9/x")


def test_the_store_is_what_the_environment_names_or_sqlite_in_the_state_folder(monkeypatch, tmp_path):
    assert tracking_uri(str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"
    assert not has_been_used(tracking_uri(str(tmp_path)))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_uri(str(tmp_path)) == "http://host:5000" and has_been_used("http://host:5000")


def test_two_pipelines_of_one_process_keep_their_own_stores(mlflow_state, tmp_path):
    first, second = (Tracker(uri=None, name="x", state=str(folder)) for folder in (mlflow_state, tmp_path))
    second.parent("p", {})
    assert first.uri != second.uri and first.client.get_experiment_by_name("x") is None


def test_looking_makes_no_experiment(tracker):
    assert tracker.runs_of("f" * 64) == [] and tracker.committed("f" * 64) is None and tracker.newest("codes") is None
    assert tracker.client.get_experiment_by_name(tracker.name) is None


def test_metrics_told_twice_are_kept_once(tracker):
    journal = tracker.journal("codes", "f", tracker.parent("p", {}))
    for update in (1, 2, 2, 1):
        journal.metrics(update, {"loss": float(update)})
    resumed = tracker.journal("codes", "f", tracker.parent("p", {}))
    resumed.metrics(2, {"loss": 9.0, "other": 1.0})
    resumed.metrics(3, {"loss": 3.0})
    history = tracker.client.get_metric_history(journal.run_id, "loss")
    assert resumed.run_id == journal.run_id
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_steps_side_by_side_may_have_the_same_inputs(tracker):
    given = [Artifact(kind=f"codes{n}", uri="u", digest=f"{n}", fingerprint="f", run_id="r") for n in range(10)]
    parent = tracker.parent("p", {})
    journals = [tracker.journal("prior", f"f{number}", parent) for number in range(6)]
    with ThreadPoolExecutor(len(journals)) as pool:
        list(pool.map(lambda journal: journal.inputs(given), journals))
    for journal in journals:
        assert len(tracker.client.get_run(journal.run_id).inputs.dataset_inputs) == len(given)


def test_parameters_are_kept_once_and_cut(tracker):
    journal = tracker.journal("codes", "f", tracker.parent("p", {}))
    journal.parameters({"long": "x" * 9000, "none": None} | {f"p{number}": number for number in range(150)})
    journal.parameters({"long": "another"})
    found = tracker.client.get_run(journal.run_id).data.params
    assert len(found) == 152 and found["long"] == "x" * 6000 and found["none"] == "None"


def test_the_newest_artifact_of_a_fingerprint_is_found(tracker):
    made = []
    for digest in ("one", "two"):
        journal = tracker.journal("codes", "f", tracker.parent("p", {}))
        made.append(Artifact(kind="codes", uri="u", digest=digest, fingerprint="f", run_id=journal.run_id))
        journal.finish(made[-1])
    assert tracker.committed("f") == made[1] and tracker.newest("codes").info.run_id == made[1].run_id
    assert tracker.made_by(made[0].run_id) == made[0]


def test_a_run_s_link_hides_the_password(tracker):
    run = tracker.parent("p", {})
    tracker.uri = "https://me:secret@host/mlflow/"
    assert tracker.run_link(run) == f"https://host/mlflow/#/experiments/{tracker.experiment_id}/runs/{run}"


@pytest.mark.parametrize("name", ["nothing", "models:/nothing/1", "models:/nothing@champion"])
def test_a_model_that_is_not_registered_is_told(tracker, name):
    with pytest.raises(UnknownModel, match="nothing"):
        tracker.model(name)


def test_a_run_that_is_not_there_is_told(tracker):
    with pytest.raises(UnknownModel, match="has no run"):
        tracker.made_by("0" * 32)


@pytest.mark.parametrize(("files", "found"), [(["model.pt2"], b"program"), ([], None), (["a.pt2", "b.pt2"], None)])
def test_the_program_of_a_registered_model_is_its_one_pt2_file(tracker, tmp_path, files, found):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "MLmodel").write_text("")
    for file in files:
        (tmp_path / "data" / file).write_bytes(b"program")
    name = f"own-{len(files)}"
    tracker.client.create_registered_model(name)
    tracker.client.create_model_version(name, source=tmp_path.as_uri())
    if found:
        assert tracker.model_program(f"models:/{name}/1") == found
    else:
        with pytest.raises(ValueError, match=r"must hold one \.pt2 file, a torch\.export program, got"):
            tracker.model_program(f"models:/{name}/1")

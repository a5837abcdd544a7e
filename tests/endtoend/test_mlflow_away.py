"""A run whose MLflow server stands still or is killed and restarted in each phase: the same result, nothing missing."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.endtoend.conftest import STEPS, Place, client, environment, run_command
from tests.services.processes import Server, answers, free_port

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.services]

AWAY_SECONDS = float(os.environ.get("AWAY_SECONDS", "12"))
"""Longer than the timeout and the retries of a request below. `AWAY_SECONDS=600 pytest --timeout 4000 <this file>` lets
MLflow be away for ten minutes in each phase."""
PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "3", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class Tracking:
    """An MLflow server on SQLite that can be away for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._server: Server | None = None

    def start(self) -> None:
        """Start it; returns when it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        command += ["--artifacts-destination", str(self.folder / "files")]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._server = Server(command, log=self.folder / "server.log", environment=settings)
        self._server.wait_until(lambda: answers(f"{self.uri}/health"), seconds=180)

    def log(self) -> str:
        """What it has written since it was started."""
        return (self.folder / "server.log").read_text()

    def stand_still(self) -> None:
        """Accept and do not answer, for a while."""
        self._server.send(signal.SIGSTOP)
        time.sleep(AWAY_SECONDS)
        self._server.send(signal.SIGCONT)

    def die_and_come_back(self) -> None:
        """Refuse connections, for a while."""
        self._server.send(signal.SIGKILL)
        time.sleep(AWAY_SECONDS)
        self.start()

    def stop(self) -> None:
        """End it."""
        self._server.stop()


@pytest.fixture
def tracking(tmp_path):
    """A running server."""
    server = Tracking(tmp_path)
    server.start()
    yield server
    server.stop()


def test_mlflow_away_in_every_phase_changes_nothing(finished_run, tracking, tmp_path):
    (tmp_path / "run").mkdir()
    place = Place(tmp_path / "run")
    outages = {
        "tokenizer: at work": tracking.die_and_come_back,  # in a fit
        "codes: at work": tracking.stand_still,  # in an encode
        "generator: at work": tracking.die_and_come_back,  # at a finish
    }
    variables = environment(MLFLOW_TRACKING_URI=tracking.uri, **PATIENT)
    command = subprocess.Popen(
        run_command(), cwd=place.folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while "experiments/get-by-name" not in tracking.log():
        time.sleep(0.1)
    time.sleep(0.5)  # the answer to that arrives
    tracking.stand_still()  # before the first run is created
    said = []
    for line in command.stdout:
        said.append(line)
        for start, outage in outages.items():
            if line.startswith(start):
                outage()
    assert command.wait() == 0, "".join(said)
    assert place.digests() == finished_run.digests()
    assert figures(MlflowClient(tracking.uri)) == figures(client(finished_run))
    away = [line for line in said if "does not answer" in line]
    back = [line for line in said if "answers again" in line]
    assert len(away) == len(back) >= 4, "".join(said)  # a busy server may seem to be away once more
    assert not [line for line in said if line.startswith("failed")]


def figures(store):
    """Updates of every figure, by step and name, and the pictures and documents of each step."""
    experiment = store.get_experiment_by_name("digits").experiment_id
    seen = {}
    for step in STEPS:
        (run,) = store.search_runs([experiment], f"tags.`vqvae2.step` = '{step}'")
        assert run.info.status == "FINISHED"
        for key in run.data.metrics:
            history = store.get_metric_history(run.info.run_id, key)
            # Shards may be written in another order, and their figures go by the rows written so far.
            seen[step, key] = len(history) if step == "codes" else sorted(metric.step for metric in history)
        seen[step, "parameters"] = sorted(run.data.params)
        seen[step, "files"] = sorted(file_names(store, run.info.run_id))
    return seen


def file_names(store, run_id, folder=""):
    """Files of a run; those of MLflow's image view without time and random part."""
    for file in store.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from file_names(store, run_id, file.path)
        else:
            yield re.sub(r"\+timestamp\+\d+\+[0-9a-f-]{36}", "", file.path)

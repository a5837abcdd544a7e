"""Faults of MLflow's server and of PostgreSQL behind it, while a step of the main job is at work."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import psycopg2

from tests.chaos.driver import Driver
from tests.chaos.encode import nothing
from tests.chaos.records import Records
from tests.chaos.run import RunScene
from tests.chaos.trap import Trap
from tests.chaos.trials import Recovery, Trial
from tests.endtoend.conftest import STEPS as ALL_STEPS
from tests.services.postgres_server import new_database, postgres_server
from tests.services.processes import Server, answers, free_port

AWAY_SECONDS = 20.0
"""Longest absence of a server."""
STEPS = ("images", "codes", "classifier")
"""Steps in which servers fail: one without a fit, the encoding, and a fit."""


class ServersScene(RunScene):
    """The main job with an MLflow server on PostgreSQL."""

    name = "run with servers"
    phases: ClassVar = {
        f"run with servers, {step}": {
            "MLflow killed, restarted": 0.2,
            "MLflow stopped for a while": 0.2,
            "PostgreSQL killed": 0.2,
            "PostgreSQL stopped for a while": 0.1,
        }
        for step in STEPS
    }

    def __init__(self, folder: Path) -> None:
        """Start both servers, and make everything once."""
        super().__init__(folder)
        self._until_end = contextlib.ExitStack()
        self._postgres = self._until_end.enter_context(postgres_server())
        self._database = new_database(self._postgres, "mlflow")
        self._port = free_port()
        self._start_mlflow()

    def close(self) -> None:
        """Stop both servers."""
        self._mlflow.stop()
        self.records.close()
        self._until_end.close()

    def _start_mlflow(self) -> None:
        line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port)]
        line += ["--workers", "1", "--artifacts-destination", str(self.folder / "mlflow-artifacts")]
        environment = {
            "MLFLOW_BACKEND_STORE_URI": self._database,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._mlflow = Server(line, log=self.folder / "mlflow.log", environment=environment)
        self._mlflow.wait_until(lambda: answers(f"{self._url}/health"), seconds=300)

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def variables(self) -> dict[str, str]:
        """Environment of the drivers."""
        return {"MLFLOW_TRACKING_URI": self._url}

    @cached_property
    def records(self) -> Records:
        """What MLflow holds."""
        return Records(self._database)

    def trap(self, trial: Trial, step: str, operations: int) -> Trap:
        """The driver itself is left alone: it only says when."""
        return Trap(str(self.artifacts / step), 1 + int(trial.point * operations), nothing)

    def disturb(self, trial: Trial, driver: Driver, recovery: Recovery) -> None:
        """Let a server be away for a while, and wait for the driver's end."""
        driver.wait_for(lambda: driver.sprung, 240)
        seconds = trial.strength * AWAY_SECONDS
        if trial.fault == "PostgreSQL killed":
            self._kill_backend()
        elif trial.fault == "MLflow killed, restarted":
            self._mlflow.send(signal.SIGKILL)
            time.sleep(seconds)
            self._start_mlflow()
        elif trial.fault == "MLflow stopped for a while":
            self._mlflow.send(signal.SIGSTOP)
            threading.Timer(seconds, self._mlflow.send, [signal.SIGCONT]).start()
        else:
            group = os.getpgid(self._postmaster())
            os.killpg(group, signal.SIGSTOP)
            threading.Timer(seconds, os.killpg, [group, signal.SIGCONT]).start()
        recovery.ended(driver)

    def _postmaster(self) -> int:
        with contextlib.closing(psycopg2.connect(self._plain_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW data_directory")
            return int((Path(cursor.fetchone()[0]) / "postmaster.pid").read_text().splitlines()[0])

    def _kill_backend(self) -> None:
        """SIGKILL one of its processes: PostgreSQL then drops all connections and recovers from its log."""
        with contextlib.closing(psycopg2.connect(self._plain_url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_stat_activity WHERE datname = 'mlflow' AND pid <> pg_backend_pid()")
            processes = [row[0] for row in cursor.fetchall()] or [connection.info.backend_pid]
            os.kill(processes[0], signal.SIGKILL)

    @property
    def _plain_url(self) -> str:
        return self._postgres.replace("+psycopg2", "")

    def start_anew(self, trial: Trial) -> None:
        """As the base class; the records of steps stay in the database, as deleted ones."""
        for step in ALL_STEPS:
            self.records.forget(step)
        shutil.move(self.folder / "runs", self.folder / f"trial-{trial.seed}")
        vars(self).pop("reference", None)

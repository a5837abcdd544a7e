"""One finished run of the shrunk digits pipeline, shared by the end-to-end tests."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from benchmarks.tiny import OVERRIDES
from tests.services.processes import Server, free_port, listens
from tests.services.ray_cluster import RayCluster

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("images", "tokenizer", "codes", "prior_top", "prior_bottom", "classifier", "judge", "generator", "evaluation")
SERVICE_VARIABLES = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "DAGSTER_HOME", "AWS_ENDPOINT_URL")
"""Environment variables that would make a run use a service outside the test."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without SERVICE_VARIABLES, and with `more`."""
    inherited = {key: value for key, value in os.environ.items() if key not in SERVICE_VARIABLES}
    return inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


def set_options(overrides: Iterable[str]) -> list[str]:
    """The overrides as options of the command line; later ones win."""
    return [word for override in overrides for word in ("--set", override)]


def run_command(*overrides: str, module: str = "pipeline") -> list[str]:
    """`python -m pipeline run` on the shrunk preset."""
    return [sys.executable, "-m", module, "run", "digits", *set_options((*OVERRIDES, *overrides))]


@dataclass(frozen=True)
class Place:
    """A folder in which the pipeline runs."""

    folder: Path

    def run(self, *overrides: str, timeout: float = 400, **variables: str) -> subprocess.CompletedProcess:
        """`python -m pipeline run` on the shrunk preset, in this folder."""
        return self._execute(run_command(*overrides), timeout, variables)

    def run_without_ray(self, *overrides: str) -> subprocess.CompletedProcess:
        """The same, its steps in the driver's process: for tests that Ray has no part in."""
        return self._execute(run_command(*overrides, module="tests.endtoend.without_ray"), 400, {})

    def pipeline(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        """Any other verb, without overrides."""
        return self._execute([sys.executable, "-m", "pipeline", *arguments], 200, variables)

    def _execute(self, command: list[str], timeout: float, variables: dict[str, str]) -> subprocess.CompletedProcess:
        return subprocess.run(
            command, cwd=self.folder, env=environment(**variables), capture_output=True, text=True, timeout=timeout
        )

    def digests(self) -> dict[str, set[str]]:
        """Digest of every committed artifact, by step."""
        digests: dict[str, set[str]] = {}
        for manifest in (self.folder / "runs" / "artifacts").glob("*/*/manifests/*.json"):
            digests.setdefault(manifest.parents[2].name, set()).add(json.loads(manifest.read_text())["digest"])
        return digests


def client(place: Place) -> MlflowClient:
    """Reads the runs of a place."""
    return MlflowClient(f"sqlite:///{place.folder}/runs/mlflow.db")


def step_runs(place: Place, step: str) -> list[Run]:
    """MLflow runs of one step."""
    experiment = client(place).get_experiment_by_name("digits")
    return client(place).search_runs([experiment.experiment_id], f"tags.`vqvae2.step` = '{step}'")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with a finished run, on Ray. Tests that change it work on a `copy_of` it."""
    place = Place(tmp_path_factory.mktemp("finished"))
    result = place.run()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (place.folder / "first.log").write_text(result.stdout)
    return place


@pytest.fixture
def copy_of(tmp_path: Path):
    """copy_of(place) returns `place` itself, whose artifacts contain absolute paths, and restores it after the test."""

    def copy(place: Place) -> Place:
        shutil.copytree(place.folder / "runs", tmp_path / "backup")
        copied.append(place)
        return place

    copied: list[Place] = []
    yield copy
    for place in copied:
        restore(tmp_path / "backup", place.folder / "runs")


def restore(backup: Path, folder: Path) -> None:
    """Replace the files, and overwrite MLflow's database, which this process has open."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    for entry in backup.iterdir():
        if entry.is_dir():
            shutil.copytree(entry, folder / entry.name)
    databases = [sqlite3.connect(place / "mlflow.db") for place in (backup, folder)]
    with contextlib.closing(databases[0]) as saved, contextlib.closing(databases[1]) as live:
        saved.backup(live)


@contextlib.contextmanager
def ray_head(cpus: int, folder: Path) -> Iterator[RayCluster]:
    """A Ray cluster of one node, as an administrator would start it, its log in `folder`."""
    cluster = RayCluster(f"127.0.0.1:{(port := free_port())}", secrets.token_hex(32))
    line = [Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}"]
    line += ["--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    cleared = [f"--unset={name}" for name in SERVICE_VARIABLES]
    settings = {**cluster.environment, "RAY_USAGE_STATS_ENABLED": "0"}
    del settings["RAY_ADDRESS"]  # it would join instead of starting
    command = ["env", *cleared, *line]
    head = Server(command, log=folder / "ray.log", environment=settings, stop_signal=signal.SIGKILL)
    try:
        head.wait_until(lambda: listens(port), seconds=60)
        yield cluster
    finally:
        head.stop()


@pytest.fixture
def standing_cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """A cluster that outlives its drivers; `.environment` is what they need."""
    with ray_head(cpus=8, folder=tmp_path) as cluster:
        yield cluster

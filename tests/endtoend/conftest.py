"""One finished run of the shrunk digits pipeline, shared by the end-to-end tests."""

import contextlib
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.tiny import OVERRIDES
from tests.services.processes import Server, free_port, listens
from tests.services.ray_cluster import RayCluster

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "DAGSTER_HOME", "AWS_ENDPOINT_URL")


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would lead a run elsewhere."""
    kept = {key: value for key, value in os.environ.items() if key not in OUTSIDE}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


def command(verb: str, *arguments: str, overrides: tuple[str, ...] = OVERRIDES) -> list[str]:
    """The command line of a verb on the shrunk preset; later overrides win."""
    return [sys.executable, "-m", "pipeline", verb, *arguments, *(word for one in overrides for word in ("--set", one))]


@dataclass(frozen=True)
class Place:
    """A folder in which the pipeline runs."""

    folder: Path

    def run(
        self, *overrides: str, config: str = "digits", timeout: float = 400, **variables: str
    ) -> subprocess.CompletedProcess:
        """`python -m pipeline run`, in this folder."""
        line = command("run", config, overrides=(*OVERRIDES, *overrides))
        return subprocess.run(
            line, cwd=self.folder, env=environment(**variables), capture_output=True, text=True, timeout=timeout
        )

    def pipeline(self, *arguments: str, timeout: float = 200, **variables: str) -> subprocess.CompletedProcess:
        """Any other verb, without overrides."""
        line = [sys.executable, "-m", "pipeline", *arguments]
        return subprocess.run(
            line, cwd=self.folder, env=environment(**variables), capture_output=True, text=True, timeout=timeout
        )

    def digests(self) -> dict[str, set[str]]:
        """Digest of every committed artifact, by step."""
        import json

        found: dict[str, set[str]] = {}
        for manifest in (self.folder / "runs" / "artifacts").glob("*/*/manifest.json"):
            found.setdefault(manifest.parent.parent.name, set()).add(json.loads(manifest.read_text())["digest"])
        return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder with a finished run. Tests that change it work on a `copy_of` it."""
    place = Place(tmp_path_factory.mktemp("finished"))
    result = place.run()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (place.folder / "first.log").write_text(result.stdout)
    return place


@pytest.fixture
def copy_of(tmp_path: Path):
    """copy_of(place) may be changed at will: afterwards it is as before, at the same place (its paths are absolute)."""

    def copy(place: Place) -> Place:
        shutil.copytree(place.folder / "runs", tmp_path / "backup")
        copied.append(place)
        return place

    copied: list[Place] = []
    yield copy
    for place in copied:
        restore(tmp_path / "backup", place.folder / "runs")


def restore(backup: Path, folder: Path) -> None:
    """Files are replaced, databases written over: this process has MLflow's open."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    for entry in backup.iterdir():
        if entry.is_dir():
            shutil.copytree(entry, folder / entry.name)
    databases = [sqlite3.connect(place / "mlflow.db") for place in (backup, folder)]
    with contextlib.closing(databases[0]) as kept, contextlib.closing(databases[1]) as live:
        kept.backup(live)


@contextlib.contextmanager
def ray_head(cpus: int, folder: Path) -> Iterator[RayCluster]:
    """A Ray cluster of one node, as an administrator would start it, its log in `folder`."""
    cluster = RayCluster(f"127.0.0.1:{(port := free_port())}", secrets.token_hex(32))
    line = [Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}"]
    line += ["--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    cleared = [f"--unset={name}" for name in OUTSIDE]
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

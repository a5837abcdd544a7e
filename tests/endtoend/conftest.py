"""One finished run of the shrunk digits pipeline, shared by the end-to-end tests."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.tiny import OVERRIDES

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
    """Move a finished place's state to a folder of the test's own and back: its paths are absolute, so it stays put."""

    def copy(place: Place) -> Place:
        backup = tmp_path / "backup"
        shutil.copytree(place.folder / "runs", backup)
        copied.append((place, backup))
        return place

    copied: list[tuple[Place, Path]] = []
    yield copy
    for place, backup in copied:
        shutil.rmtree(place.folder / "runs")
        shutil.copytree(backup, place.folder / "runs")


@contextlib.contextmanager
def ray_head(cpus: int) -> Iterator[str]:
    """A Ray cluster of one node on loopback, as an administrator would start it; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        f"--port={port}",
        f"--num-cpus={cpus}",
        "--include-dashboard=false",
        "--node-ip-address=127.0.0.1",
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(line, env=environment(RAY_USAGE_STATS_ENABLED="0"), start_new_session=True, **quiet)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(30)


@pytest.fixture
def standing_cluster() -> Iterator[str]:
    """Address of a cluster that outlives its drivers."""
    with ray_head(cpus=8) as address:
        yield address

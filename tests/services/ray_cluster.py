"""A Ray cluster of two nodes on loopback, whose workers have only the code that a driver sends."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.services.processes import Server

PROGRAM = Path(__file__).parent / "two_nodes.py"
NOT_PASSED_ON = ("AWS_", "MLFLOW_", "RAY_", "PYTHONPATH")


@dataclass(frozen=True)
class RayCluster:
    """Address of the cluster's head, and the token to connect."""

    address: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a driver joins."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}


@contextlib.contextmanager
def ray_cluster(folder: Path) -> Iterator[RayCluster]:
    """A running cluster with its log in `folder`; stopped at the end."""
    address_file, token = folder / "address", secrets.token_hex(32)
    settings = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    inherited = [name for name in os.environ if name.startswith(NOT_PASSED_ON) and name not in settings]
    command = ["env", *(f"--unset={name}" for name in inherited), sys.executable, PROGRAM, address_file]
    server = Server(command, log=folder / "ray.log", environment=settings)
    try:
        server.wait_until(address_file.exists, seconds=120)
        yield RayCluster(address_file.read_text(), token)
    finally:
        server.stop()

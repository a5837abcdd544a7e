"""An MLflow tracking server on loopback: runs in PostgreSQL, artifacts in S3."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.services.postgres_server import new_database
from tests.services.processes import Server, answers, free_port
from tests.services.swift_server import ObjectStore


@contextlib.contextmanager
def mlflow_server(folder: Path, postgres: str, s3: ObjectStore) -> Iterator[str]:
    """A running server with its log in `folder`; yields its URL.

    Clients write artifacts directly to the bucket, with their own AWS_* variables.
    """
    port = free_port()
    environment = {
        **s3.environment,
        "MLFLOW_BACKEND_STORE_URI": new_database(postgres, "mlflow"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    artifacts = ["--no-serve-artifacts", "--default-artifact-root", f"s3://{s3.bucket}/mlflow"]
    server = Server([*command, *artifacts], log=folder / "mlflow.log", environment=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        server.wait_until(lambda: answers(f"{url}/health"), seconds=180)
        yield url
    finally:
        server.stop()

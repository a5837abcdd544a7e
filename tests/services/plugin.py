"""Servers for tests, each started once per process when the first test requests it.

Without an installed server the test fails with the command that installs it; nothing is skipped.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.mlflow_server import mlflow_server as start_mlflow
from tests.services.postgres_server import postgres_server
from tests.services.ray_cluster import RayCluster
from tests.services.ray_cluster import ray_cluster as start_ray
from tests.services.swift_server import ObjectStore, swift_server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """An S3 server with one empty bucket; `s3.environment` has the variables of its clients and is not set yet."""
    with swift_server(tmp_path_factory.mktemp("swift")) as store:
        yield store


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL server; `new_database` creates a database on it."""
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, postgres: str, s3: ObjectStore) -> Iterator[str]:
    """URL of an MLflow server that stores runs in `postgres` and artifacts in `s3`."""
    folder: Path = tmp_path_factory.mktemp("mlflow")
    with start_mlflow(folder, postgres, s3) as url:
        yield url


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A Ray cluster of two nodes; `ray_cluster.environment` has the variables of a driver and is not set yet."""
    with start_ray(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster

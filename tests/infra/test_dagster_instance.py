"""infra/dagster.yaml: an instance made from it stores its runs in a real PostgreSQL."""

import shutil

import dagster
import pytest
from sqlalchemy import make_url

from tests.infra.documents import ROOT
from tests.services.postgres_server import new_database

pytestmark = pytest.mark.services


@dagster.asset
def answer() -> int:
    return 42


def test_a_run_is_stored_in_postgres(postgres: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = make_url(new_database(postgres, "dagster"))
    parts = {"HOST": url.host, "PORT": url.port, "USER": url.username, "PASSWORD": url.password, "DB": url.database}
    for name, value in parts.items():
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", str(value))
    shutil.copy(ROOT / "infra" / "dagster.yaml", tmp_path)
    with dagster.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = dagster.materialize([answer], instance=instance, resources={"io_manager": dagster.InMemoryIOManager()})
        assert run.success
    with dagster.DagsterInstance.from_config(str(tmp_path)) as again:
        assert again.get_run_by_id(run.run_id).status == dagster.DagsterRunStatus.SUCCESS
        assert again.run_monitoring_enabled and again.run_retries_enabled and not again.telemetry_enabled

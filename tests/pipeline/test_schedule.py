"""A schedule's tick becomes a run that ends well, by the daemon that `ui` starts."""

import os
import sys
import time

import dagster as dg
import pytest

from tests.services.processes import Server, free_port


@pytest.mark.slow
@pytest.mark.services
def test_a_tick_of_the_schedule_becomes_a_finished_run(finished, tmp_path, monkeypatch):
    """Every minute, on a DAG that is done: the run finds so."""
    config_file, _, _ = finished
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    command = [sys.executable, "-m", "pipeline", "ui", config_file, "--port", str(free_port())]
    environment = {"PYTHONPATH": os.getcwd()}
    command += ["--set", "orchestration.schedule=* * * * *"]
    served = Server(command, log=tmp_path / "ui.log", environment=environment)
    try:
        served.wait_until((tmp_path / "dagster.yaml").exists, seconds=60)
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            run = wait_for_success(instance, seconds=240)
            made = instance.get_latest_materialization_event(dg.AssetKey("evaluation"))
    finally:
        served.stop()
    assert run.tags["dagster/schedule_name"] == "scheduled" and made.run_id == run.run_id


def wait_for_success(instance: dg.DagsterInstance, seconds: float) -> dg.DagsterRun:
    """The first run that ended well."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in instance.get_runs():
            assert run.status != dg.DagsterRunStatus.FAILURE
            if run.status == dg.DagsterRunStatus.SUCCESS:
                return run
        time.sleep(1.0)
    raise AssertionError(f"no run ended within {seconds:.0f} s: {instance.get_runs()}")

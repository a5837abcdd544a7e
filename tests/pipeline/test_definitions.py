"""The job and the schedule of a config, and a run that the daemon of `ui` starts by the schedule."""

import dataclasses
import os
import sys
import time

import dagster as dg
import pytest

from pipeline.definitions import JOB, definitions_of
from tests.services.processes import Server, free_port


def test_one_config_gives_one_schedule_and_one_job(finished):
    _, config, _ = finished
    nightly = dataclasses.replace(config.orchestration, schedule="0 3 * * *")
    definitions = definitions_of(dataclasses.replace(config, orchestration=nightly))
    schedule = definitions.resolve_schedule_def("scheduled")
    assert schedule.cron_schedule == "0 3 * * *" and schedule.job_name == JOB
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert not list(definitions_of(config).schedules or [])


@pytest.mark.slow
@pytest.mark.services
def test_a_tick_of_the_schedule_starts_a_run_that_succeeds(finished, tmp_path, monkeypatch):
    """The schedule ticks every minute; the DAG is finished, so that the run only finds its artifacts."""
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
    """The first run that succeeded, within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in instance.get_runs():
            assert run.status != dg.DagsterRunStatus.FAILURE
            if run.status == dg.DagsterRunStatus.SUCCESS:
                return run
        time.sleep(1.0)
    raise AssertionError(f"no run ended within {seconds:.0f} s: {instance.get_runs()}")

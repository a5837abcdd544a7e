"""What `kill -9` of a driver costs: the next run continues, and makes the same artifacts."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from mlflow.entities import Run

from tests.endtoend.conftest import STEPS, Place, client, environment, run_command, step_runs

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FITS = ("tokenizer", "prior_bottom")
"""Fits among the steps that are killed."""


def test_kill_9_in_the_middle_of_each_step_costs_only_time(finished_run, copy_of):
    """Killed in stage 1, while encoding, in stage 2 and while sampling: each time the same MLflow run continues."""
    place = copy_of(finished_run)
    digests, killed = place.digests(), ["tokenizer", "codes", "prior_bottom", "evaluation"]
    forget(place, [*killed, "classifier", "judge"])  # these two are fitted beside the tokenizer
    for step in killed:
        kill_driver_at(step, place)
    interrupted = {run.info.run_id for run in every_run(place) if "vqvae2.artifact" not in run.data.tags}
    result = place.run()
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    runs = every_run(place)
    assert len(runs) == len(STEPS) and interrupted  # no step needed a second run
    assert all(run.info.status == "FINISHED" for run in runs)
    assert place.digests() == digests  # those of an uninterrupted run


def test_an_orphan_on_a_standing_cluster_and_its_successor_never_both_write(finished_run, copy_of, standing_cluster):
    """The driver is killed, its trainer may live on: the next run waits for silence, takes over, and ends the same."""
    place = copy_of(finished_run)
    digests = place.digests()
    forget(place, ["tokenizer"])  # the new tokenizer has the same digest, so that the later steps are done
    process = kill_driver_at("tokenizer", place, **standing_cluster.environment)
    result = place.run(**standing_cluster.environment)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "tokenizer: waiting for" in result.stdout and f"process {process}" in result.stdout
    assert place.digests() == digests


def every_run(place: Place) -> list[Run]:
    return [run for step in STEPS for run in step_runs(place, step)]


def forget(place: Place, steps: list[str]) -> None:
    """Delete the artifacts and the MLflow runs of `steps`."""
    for step in steps:
        shutil.rmtree(place.folder / "runs" / "artifacts" / step, ignore_errors=True)
        for run in step_runs(place, step):
            client(place).delete_run(run.info.run_id)


def kill_driver_at(step: str, place: Place, **variables: str) -> int:
    """Start a run, and kill it with SIGKILL once it works on `step`; returns the process id."""
    driver = subprocess.Popen(
        run_command(),
        cwd=place.folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(step, driver, place)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    return driver.pid


def wait_for(step: str, driver: subprocess.Popen, place: Place) -> None:
    """Return when `step` has begun, and a fit when its first checkpoint is written."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith(f"{step}: at work"):
            break
    checkpoints = place.folder / "runs" / "artifacts" / step
    deadline = time.monotonic() + 120
    while step in FITS and time.monotonic() < deadline:
        if list(checkpoints.glob("*/.work/*/fit/checkpoint_*/state.json")):
            return
        time.sleep(0.05)
    time.sleep(1.0)

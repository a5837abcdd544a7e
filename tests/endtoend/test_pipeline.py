"""The main job, shrunk: what a run leaves, what the next one skips, what it notices, what a kill costs."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tests.endtoend.conftest import Place, command, environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STEPS = ["images", "tokenizer", "codes", "prior_top", "prior_bottom", "classifier", "judge", "generator", "evaluation"]


def client(place: Place) -> MlflowClient:
    return MlflowClient(f"sqlite:///{place.folder}/runs/mlflow.db")


def step_runs(place: Place, step: str) -> list[mlflow.entities.Run]:
    experiment = client(place).get_experiment_by_name("digits")
    return client(place).search_runs([experiment.experiment_id], f"tags.`vqvae2.step` = '{step}'")


def test_a_run_makes_every_artifact_and_says_where_to_look(finished):
    log = (finished.folder / "first.log").read_text()
    assert set(finished.digests()) == set(STEPS)
    assert "mlflow ui" in log and "pipeline ui" in log and "report.html" in log
    for path in (finished.folder / "runs" / "latest" / "digits").glob("*"):
        assert str(path) in log and path.stat().st_size > 500
    assert "updates" in log and "left" in log  # progress with a rate and the time left


def test_one_parent_run_and_a_child_a_step_with_tags_to_walk_back_along(finished):
    for step in STEPS:
        (run,) = step_runs(finished, step)
        assert run.info.status == "FINISHED" and run.data.tags["vqvae2.fingerprint"] and run.data.tags["vqvae2.git"]
        parent = client(finished).get_run(run.data.tags["mlflow.parentRunId"])
        assert parent.info.status == "FINISHED"
        if step != "images":
            assert run.inputs.dataset_inputs and json.loads(run.data.tags["vqvae2.inputs"])
    (tokenizer,) = step_runs(finished, "tokenizer")
    history = client(finished).get_metric_history(tokenizer.info.run_id, "held_out/loss")
    assert [metric.step for metric in history] == [15, 30]
    pictures = [file.path for file in client(finished).list_artifacts(tokenizer.info.run_id, "images")]
    for name in ("reconstruction", "levels"):  # the same held-out images at every evaluation
        assert {path.split("+")[2] for path in pictures if path.startswith(f"images/{name}+")} == {"15", "30"}


def test_lineage_leads_from_the_generator_to_the_image_snapshot(finished):
    result = finished.pipeline("lineage", "models:/digits-generator@champion")
    assert result.returncode == 0, result.stderr
    for step in ("generator", "prior_top", "prior_bottom", "codes", "tokenizer", "images"):
        assert step in result.stdout
    digest = next(iter(finished.digests()["images"]))
    assert digest[:12] in result.stdout


def test_a_second_run_does_no_work(finished):
    before = {
        path: path.stat().st_mtime_ns for path in (finished.folder / "runs" / "artifacts").glob("*/*/*.safetensors")
    }
    result = finished.run()
    assert result.returncode == 0 and "nothing to do" in result.stdout
    assert "joining Ray" not in result.stdout and "at work" not in result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert all(len(step_runs(finished, step)) == 1 for step in STEPS)


def test_a_changed_prior_setting_refits_that_prior_and_what_follows(finished, copy_of):
    result = copy_of(finished).run("priors.bottom.dropout=0.2")
    assert result.returncode == 0, result.stderr
    made = result.stdout.split("digits: made ")[1].split("(")[0].strip().split(", ")
    assert sorted(made) == ["evaluation", "generator", "prior_bottom"]


def test_a_deleted_shard_and_a_cut_model_are_noticed_and_made_again(finished, copy_of):
    place = copy_of(finished)
    digests = place.digests()
    shard = next((place.folder / "runs" / "artifacts" / "codes").glob("*/part-*.parquet"))
    weights = next((place.folder / "runs" / "artifacts" / "prior_top").glob("*/model.safetensors"))
    shard.unlink()
    weights.write_bytes(weights.read_bytes()[:100])
    result = place.run()
    assert result.returncode == 0, result.stderr
    assert f"{shard.name} is missing" in result.stdout and "model.safetensors" in result.stdout
    assert "digits: made codes, prior_top (" in result.stdout
    assert place.digests() == digests  # the same seed gives the same codes and weights


def test_a_failed_gate_stops_the_run_is_remembered_and_passes_when_the_bar_is_moved(finished, copy_of):
    place = copy_of(finished)
    first, second = (place.run("gates.reconstruction_error=0.00001") for _ in range(2))
    for result in (first, second):
        assert result.returncode == 3 and "reconstruction_error" in result.stderr and "tokenizer" in result.stderr
    assert "in an earlier run" in second.stdout and "codes" not in second.stdout
    (tokenizer,) = step_runs(place, "tokenizer")
    assert tokenizer.data.tags["vqvae2.gates"].startswith("failed: reconstruction_error")
    assert place.run().returncode == 0


def test_kill_9_in_the_middle_of_each_step_costs_nothing_but_time(finished, copy_of):
    """Killed in stage 1, while encoding, in stage 2 and while sampling: each time the same MLflow run goes on."""
    place = copy_of(finished)
    digests, killed = place.digests(), ["tokenizer", "codes", "prior_bottom", "evaluation"]
    forget(place, killed)
    for step in killed:
        driver = start(place)
        wait_for(driver, step, place)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    interrupted = {run.info.run_id for run in every_run(place) if "vqvae2.artifact" not in run.data.tags}
    result = place.run()
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    runs = every_run(place)
    assert len(runs) == len(STEPS) and interrupted  # no step needed a second run
    assert all(run.info.status == "FINISHED" for run in runs)
    assert place.digests() == digests  # what an unbroken run gives


def test_an_orphan_on_a_standing_cluster_and_its_successor_never_both_write(finished, copy_of, standing_cluster):
    """The driver is killed, its trainer may live on: the next run waits for silence, takes over, and ends the same."""
    place = copy_of(finished)
    digests = place.digests()
    forget(place, ["tokenizer"])  # the same comes out of it, so that what follows is done
    driver = start(place, **standing_cluster.environment)
    wait_for(driver, "tokenizer", place)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    result = place.run(**standing_cluster.environment)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "tokenizer: waiting for" in result.stdout and f"process {driver.pid}" in result.stdout
    assert place.digests() == digests


def start(place: Place, **variables: str) -> subprocess.Popen:
    """A driver to be killed."""
    line = command("run", "digits")
    return subprocess.Popen(
        line, cwd=place.folder, env=environment(**variables), stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def every_run(place: Place) -> list[mlflow.entities.Run]:
    return [run for step in STEPS for run in step_runs(place, step)]


def forget(place: Place, steps: list[str]) -> None:
    """Make `steps` undone: their artifacts go, and their runs, as if they had never been."""
    import shutil

    for step in steps:
        shutil.rmtree(place.folder / "runs" / "artifacts" / step, ignore_errors=True)
        for run in step_runs(place, step):
            client(place).delete_run(run.info.run_id)


def wait_for(driver: subprocess.Popen, step: str, place: Place) -> None:
    """Until `step` has begun, and for a fit until its first checkpoint is written."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if line.startswith(f"{step}: at work"):
            break
    deadline = time.monotonic() + 120
    checkpoints = place.folder / "runs" / "artifacts" / step
    while step in ("tokenizer", "prior_bottom") and time.monotonic() < deadline:
        if list(Path(checkpoints).glob("*/.work/fit/checkpoint_*/state.json")):
            return
        time.sleep(0.05)
    time.sleep(1.0)

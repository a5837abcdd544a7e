"""A finished run of the shrunk digits pipeline: its output, and what a second run skips, detects and makes again."""

import json

import numpy as np
import pytest
import torch

from benchmarks.tiny import OVERRIDES
from components.evaluation.features.exported import export
from tests.endtoend.conftest import STEPS, client, set_options, step_runs

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Brightness(torch.nn.Module):
    """One feature."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))[:, None]


def test_a_run_makes_every_artifact_and_names_its_outputs(finished_run):
    log = (finished_run.folder / "first.log").read_text()
    assert set(finished_run.digests()) == set(STEPS)
    assert "mlflow ui" in log and "pipeline ui" in log and "report.html" in log
    for path in (finished_run.folder / "runs" / "latest" / "digits").glob("*"):
        assert str(path) in log and path.stat().st_size > 500
    assert "updates" in log and "left" in log  # progress with a rate and the time left
    assert "(raylet)" not in log  # nothing of Ray's own


def test_each_step_has_a_child_run_with_tags_for_lineage(finished_run):
    for step in STEPS:
        (run,) = step_runs(finished_run, step)
        assert run.info.status == "FINISHED" and run.data.tags["vqvae2.fingerprint"] and run.data.tags["vqvae2.git"]
        parent = client(finished_run).get_run(run.data.tags["mlflow.parentRunId"])
        assert parent.info.status == "FINISHED"
        if step != "images":
            assert run.inputs.dataset_inputs and json.loads(run.data.tags["vqvae2.inputs"])
    (tokenizer,) = step_runs(finished_run, "tokenizer")
    history = client(finished_run).get_metric_history(tokenizer.info.run_id, "held_out/loss")
    assert [metric.step for metric in history] == [15, 30]
    pictures = [file.path for file in client(finished_run).list_artifacts(tokenizer.info.run_id, "images")]
    for name in ("reconstruction", "levels"):  # the same held-out images at every evaluation
        assert {path.split("+")[2] for path in pictures if path.startswith(f"images/{name}+")} == {"15", "30"}


def test_lineage_goes_from_the_generator_to_the_image_snapshot(finished_run):
    result = finished_run.pipeline("lineage", "models:/digits-generator@champion")
    assert result.returncode == 0, result.stderr
    for step in ("generator", "prior_top", "prior_bottom", "codes", "tokenizer", "images"):
        assert step in result.stdout
    digest = next(iter(finished_run.digests()["images"]))
    assert digest[:12] in result.stdout


def test_reference_statistics_are_those_of_the_run_s_training_images(finished_run):
    (finished_run.folder / "brightness.pt2").write_bytes(export(Brightness()))
    settings = set_options((*OVERRIDES, "evaluation.features=[{name: brightness, program: brightness.pt2}]"))
    command = ("features", "statistics", "digits", "brightness.npz", "--features", "brightness", *settings)
    result = finished_run.pipeline(*command)
    assert result.returncode == 0, result.stderr
    (run,) = step_runs(finished_run, "images")
    with np.load(finished_run.folder / "brightness.npz") as stored:
        assert stored["count"] == run.data.metrics["train_images"] and 0 < stored["mu"] < 255


def test_a_second_run_does_no_work(finished_run):
    before = {
        path: path.stat().st_mtime_ns
        for path in (finished_run.folder / "runs" / "artifacts").glob("*/*/*/*.safetensors")
    }
    result = finished_run.run()
    assert result.returncode == 0 and "nothing to do" in result.stdout
    assert "joining Ray" not in result.stdout and "at work" not in result.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert all(len(step_runs(finished_run, step)) == 1 for step in STEPS)


def test_a_changed_prior_setting_refits_that_prior_and_what_follows(finished_run, copy_of):
    result = copy_of(finished_run).run_without_ray("priors.bottom.dropout=0.2")
    assert result.returncode == 0, result.stderr
    made = result.stdout.split("digits: made ")[1].split("(")[0].strip().split(", ")
    assert sorted(made) == ["evaluation", "generator", "prior_bottom"]


def test_a_deleted_shard_and_a_truncated_model_are_detected_and_made_again(finished_run, copy_of):
    place = copy_of(finished_run)
    digests = place.digests()
    shard = next((place.folder / "runs" / "artifacts" / "codes").glob("*/*/part-*.parquet"))
    weights = next((place.folder / "runs" / "artifacts" / "prior_top").glob("*/*/model.safetensors"))
    shard.unlink()
    weights.write_bytes(weights.read_bytes()[:100])
    result = place.run_without_ray()
    assert result.returncode == 0, result.stderr
    assert f"{shard.name} is missing" in result.stdout and "model.safetensors" in result.stdout
    assert "digits: made codes, prior_top (" in result.stdout
    assert place.digests() == digests  # the same seed gives the same codes and weights


def test_a_failed_gate_stops_the_run_is_remembered_and_passes_with_another_limit(finished_run, copy_of):
    place = copy_of(finished_run)
    first, second = (place.run("gates.reconstruction_error=0.00001") for _ in range(2))
    for result in (first, second):
        assert result.returncode == 3 and "reconstruction_error" in result.stderr and "tokenizer" in result.stderr
    assert "in an earlier run" in second.stdout and "codes" not in second.stdout
    (tokenizer,) = step_runs(place, "tokenizer")
    assert tokenizer.data.tags["vqvae2.gates"].startswith("failed: reconstruction_error")
    assert place.run().returncode == 0

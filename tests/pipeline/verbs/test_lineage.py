"""`lineage`: all artifacts behind a model, each once."""

import argparse

import pytest

from components.errors import UnknownModel, UsageError
from pipeline.verbs.lineage import print_lineage


def test_the_lineage_of_a_generator_ends_at_the_image_snapshot(finished, mlflow_state, capsys):
    _, _, session = finished
    assert (
        print_lineage(argparse.Namespace(model="models:/finished-generator@challenger", state=str(mlflow_state))) == 0
    )
    out = capsys.readouterr().out
    line = {text.strip("│├└─ ").split(",")[0]: text for text in out.splitlines() if ", code " in text}
    ancestors = {
        name: result.artifact for name, result in session.memo.results.items() if name not in ("judge", "evaluation")
    }
    assert set(line) == {f"{name} {artifact.digest[:12]}" for name, artifact in ancestors.items()}
    assert all(
        artifact.uri in out and session.tracker.run_link(artifact.run_id) in out for artifact in ancestors.values()
    )
    first = out.splitlines()[0]
    assert first.startswith("models:/finished-generator/1 (") and "challenger" in first
    assert "30 images of 3 classes from digits" in out
    assert all("gates passed" in text for text in line.values())


def test_a_shared_input_is_shown_once(finished, mlflow_state, capsys):
    print_lineage(argparse.Namespace(model="finished-generator", state=str(mlflow_state)))
    out = capsys.readouterr().out
    images = finished[2].artifact("images")
    assert out.count(images.uri + "\n") == 1 and out.count(f"images {images.digest[:12]} (above)") == 2


def test_a_missing_model_and_a_missing_registry_are_reported(finished, mlflow_state, tmp_path):
    with pytest.raises(UnknownModel, match="no model 'other'"):
        print_lineage(argparse.Namespace(model="other", state=str(mlflow_state)))
    with pytest.raises(UsageError, match="no model is registered yet"):
        print_lineage(argparse.Namespace(model="other", state=str(tmp_path)))

"""The evaluation of generators whose images have no classes, or classes of very different sizes."""

import dataclasses
import json

import pytest
import torch

from components.classifier.config import ClassifierArchitecture
from components.classifier.stored import ClassifierDescription, pack_classifier
from components.evaluation.features.config import FeaturesConfig
from tests.evaluation.artifacts import artifacts_behind
from tests.evaluation.tiny import CONFIG, run_evaluation
from tests.store.committed_files import stored_path

pytestmark = pytest.mark.slow  # imports Ray

ROTATIONS = ("0 degrees", "90 degrees", "180 degrees", "270 degrees")


def rotation_judge(folder):
    """Folder of a judge that tells rotations apart."""
    torch.manual_seed(9)
    description = ClassifierDescription(
        architecture=ClassifierArchitecture(hidden=4, stages=2), task="rotation", channels=1, class_names=ROTATIONS
    )
    folder.mkdir()
    for name, data in pack_classifier(description.build(), description).items():
        (folder / name).write_bytes(data)
    return folder


def test_without_labels_all_but_recognition_is_measured_and_nothing_rejected(classless_folders, tmp_path, capsys):
    folders = {**classless_folders, "judge": rotation_judge(tmp_path / "judge")}
    inputs = artifacts_behind(folders, tmp_path, {"": 60})
    output = run_evaluation(tmp_path, inputs, "evaluation")
    assert output.facts.judge_accuracy is None and "no classes to recognise" in output.facts.headline()
    assert "nothing is rejected" in capsys.readouterr().out
    figures = json.loads(stored_path(tmp_path / "evaluation", "scores.json").read_text())
    assert {"recall/before", "kernel_distance/real", "psnr", "memorisation/copied_share"} <= set(figures)
    assert not [name for name in figures if "accuracy" in name or "inception" in name or "0.5" in name]
    page = output.documents["report.html"]
    assert "Rejection is off" in page and "fitted to tell rotation apart" in page


def test_classes_of_very_different_sizes_keep_their_shares(generator_folders, tmp_path):
    inputs = artifacts_behind(generator_folders, tmp_path, {"ant": 60, "bee": 4, "cat": 30})
    output = run_evaluation(tmp_path, inputs, "evaluation", dataclasses.replace(CONFIG, cas_updates=0))
    card = json.loads(stored_path(tmp_path / "evaluation", "results.json").read_text())
    precision = next(entry for entry in card["comparisons"] if entry["measure"] == "precision")
    assert output.facts.samples == 18 and precision["images"] == 18
    assert precision["reference_images"] * 2 in (card["context"]["train_images"], card["context"]["train_images"] - 1)


class MeanColour(torch.nn.Module):
    """Four features and three logits of an image."""

    def forward(self, images):
        pooled = torch.nn.functional.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), 2).flatten(1)  # (n, 4)
        return pooled, pooled[:, :3] / 50


def test_own_features_have_their_own_figures_and_digest(inputs, root, tmp_path):
    images = torch.rand(2, 3, 16, 16)
    program = torch.export.export(MeanColour(), (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, tmp_path / "mean.pt2")
    features = FeaturesConfig(name="mean_colour", program=str(tmp_path / "mean.pt2"))
    config = dataclasses.replace(CONFIG, features=(features,), cas_updates=0)
    run_evaluation(root, inputs, "own-features", config)
    figures = json.loads(stored_path(root / "own-features", "scores.json").read_text())
    # Four features: 18 images are more than twice as many, so that the Frechet distance has a value.
    assert figures["mean_colour/frechet_distance/before"] > 0 and "frechet_distance/before" not in figures
    assert 1 <= figures["mean_colour/inception_score/real"] <= 3
    card = json.loads(stored_path(root / "own-features", "results.json").read_text())
    digests = {entry["features"]: entry.get("digest") for entry in card["comparisons"][1:]}
    assert len(digests["mean_colour"]) == 64 and digests["judge"] == inputs["judge"].digest

"""The step with a classifier of the user's own: measured on held-out images and committed, nothing fitted."""

import io
from types import SimpleNamespace

import pytest
import torch

from components.artifacts import Artifact
from components.classifier.config import ClassifierConfig
from components.classifier.model import Classifier
from components.config import StepResources, TrainingConfig
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.sources import list_images
from components.store import commits
from components.store.weights import load_rejector

pytestmark = pytest.mark.slow  # imports Ray

IMAGES = ImagesConfig(source="digits", image_size=16, channels=1, upscale=True)
CONFIG = ClassifierConfig(hidden=4, program="own.pt2", training=TrainingConfig(updates=1, batch_size=64))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("images"))
    digest = commit_snapshot(folder, list_images(IMAGES, folder), [], IMAGES, seed=0)
    return Artifact(kind="images", uri=folder, digest=digest, fingerprint="", run_id="")


def adopted(images, folder, classes):
    """Outcome of the step, given an untrained network of that many classes."""
    from components.classifier.step import fit_classifier

    torch.manual_seed(0)
    network, file = Classifier(CONFIG, channels=1, classes=classes).eval(), io.BytesIO()
    shapes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=shapes), file)
    space = SimpleNamespace(uri=str(folder), seed=0, lease=SimpleNamespace(check=lambda: None))
    return network, fit_classifier(
        CONFIG, IMAGES, images, program=file.getvalue(), resources=StepResources(), cluster=None, workspace=space
    )


def test_a_program_is_measured_and_committed(images, tmp_path):
    network, outcome = adopted(images, tmp_path / "own", classes=10)
    assert 0 <= outcome.facts["held_out_accuracy"] < 0.5
    pixels = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(load_rejector(commits.local_copy(str(tmp_path / "own")))(pixels), network(pixels))


def test_a_program_of_other_classes_is_refused_before_anything_is_kept(images, tmp_path):
    with pytest.raises(ValueError, match=r"got \(1, 7\): does it know other classes"):
        adopted(images, tmp_path / "own", classes=7)
    assert not (tmp_path / "own").exists()

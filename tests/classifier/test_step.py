"""The classifier step: a fitted classifier, and an exported program that is measured and committed."""

import functools
import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from components.artifacts import Artifact
from components.classifier.config import ClassifierArchitecture, ClassifierConfig
from components.classifier.facts import ClassifierFacts
from components.classifier.model import Classifier
from components.classifier.objective import ROTATIONS
from components.classifier.stored import describe_classifier, load_classifier, load_rejector
from components.config import StepResources, TrainingConfig
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.sources.registry import list_images
from components.store import commits
from components.store.lease import acquire_lease
from components.workspace import NoModels, Workspace

pytestmark = pytest.mark.slow  # imports Ray

IMAGES = ImagesConfig(source="digits", image_size=16, channels=1, upscale=True)


class OneProgram(NoModels):
    """A registry with one model."""

    def __init__(self, program: bytes) -> None:
        self.program = program

    def read_program(self, uri: str) -> bytes:
        assert uri == "models:/mine/1"
        return self.program


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("images"))
    digest = commit_snapshot(folder, list_images(IMAGES, folder), [], IMAGES, seed=0)
    return Artifact(kind="images", uri=folder, digest=digest, fingerprint="", run_id="")


def export_classifier(classes):
    """An untrained network with `classes` classes, and the bytes of its .pt2 file."""
    torch.manual_seed(0)
    network, file = Classifier(ClassifierArchitecture(hidden=4), channels=1, classes=classes).eval(), io.BytesIO()
    shapes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=shapes), file)
    return network, file.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """photos(classes): a snapshot of digits as files, without classes or in one."""

    def take(classes):
        root = tmp_path_factory.mktemp("photos")
        for number, values in enumerate(load_digits().images[:24]):
            path = root / "in" / ("it" if classes else "") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((values * 15).astype(np.uint8)).save(path)
        config = ImagesConfig(
            source="folder", uri=str(root / "in"), image_size=16, channels=1, upscale=True, held_out=0.3
        )
        folder = str(root / "out")
        digest = commit_snapshot(folder, list_images(config, folder), [], config, seed=0)
        return Artifact(kind="images", uri=folder, digest=digest, fingerprint="", run_id="")

    return functools.cache(take)


def run_step(images, folder, models=None, judge=False, **settings):
    """Output of the step with these settings."""
    from components.classifier.step import fit_classifier, fit_judge

    config = ClassifierConfig(hidden=4, training=TrainingConfig(updates=2, batch_size=64), **settings)
    lease = acquire_lease(f"{folder}-lease", wait_seconds=0, report=print)
    space = Workspace(
        name="classifier", fingerprint="", uri=str(folder), seed=0, lease=lease, models=models or NoModels()
    )
    fit = fit_judge if judge else fit_classifier
    return fit(config, images, resources=StepResources(), workspace=space)


def adopt(program, images, folder, models=None):
    """Output of the step whose config names `program`."""
    return run_step(images, folder, models, program=str(program))


def test_a_fitted_classifier_is_committed_with_its_architecture_and_dropout(images, tmp_path):
    output = run_step(images, tmp_path / "made", dropout=0.25, stages=2)
    folder = commits.local_copy(str(tmp_path / "made"))
    description = describe_classifier(folder)
    assert description.architecture == ClassifierArchitecture(hidden=4, stages=2) and description.dropout == 0.25
    assert description.class_names == tuple("0123456789") and load_rejector(folder).dropout.p == 0.25
    assert 0 <= output.facts.held_out_accuracy <= 1 and output.facts.best_update == 2


def test_classifiers_of_different_seeds_differ(images, tmp_path):
    digests = {run_step(images, tmp_path / str(seed), seed=seed).digest for seed in (0, 1)}
    assert len(digests) == 2


def test_a_program_is_measured_and_committed(images, tmp_path):
    network, data = export_classifier(classes=10)
    (tmp_path / "mine.pt2").write_bytes(data)
    output = adopt(tmp_path / "mine.pt2", images, tmp_path / "made")
    assert 0 <= output.facts.held_out_accuracy < 0.5
    assert ClassifierFacts.read(commits.read_manifest(str(tmp_path / "made"))["facts"]) == output.facts
    folder, pixels = commits.local_copy(str(tmp_path / "made")), torch.rand(3, 1, 16, 16)
    assert describe_classifier(folder).architecture is None
    torch.testing.assert_close(load_rejector(folder)(pixels), network(pixels))


def test_a_registered_program_is_read_from_the_registry(images, tmp_path):
    network, data = export_classifier(classes=10)
    adopt("models:/mine/1", images, tmp_path / "made", OneProgram(data))
    pixels = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(load_rejector(commits.local_copy(str(tmp_path / "made")))(pixels), network(pixels))


def test_a_program_with_other_classes_is_refused_before_anything_is_stored(images, tmp_path):
    (tmp_path / "mine.pt2").write_bytes(export_classifier(classes=7)[1])
    with pytest.raises(ValueError, match=r"got \(1, 7\): was it made for other classes"):
        adopt(tmp_path / "mine.pt2", images, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_missing_program_file_is_reported(images, tmp_path):
    with pytest.raises(ValueError, match=r"must name a \.pt2 file, found nothing at .*gone\.pt2"):
        adopt(tmp_path / "gone.pt2", images, tmp_path / "made")


@pytest.mark.parametrize("classes", [(), ("it",)])
def test_with_fewer_than_two_classes_the_rejecting_classifier_is_empty(photos, tmp_path, capsys, classes):
    output = run_step(photos(classes), tmp_path / "made")
    folder = commits.local_copy(str(tmp_path / "made"))
    assert describe_classifier(folder).class_names == classes and load_rejector(folder) is None
    assert commits.file_names(str(tmp_path / "made")) == ["config.json"]
    assert output.facts.record()["held_out_accuracy"] is None and "not fitted" in output.facts.headline()
    assert (
        f"the images have {'one class' if classes else 'no classes'}, so that no sample is" in capsys.readouterr().out
    )


def test_a_program_is_not_used_where_the_images_have_no_classes(photos, tmp_path, capsys):
    adopt(tmp_path / "gone.pt2", photos(()), tmp_path / "made")
    assert "classifier.program is not used" in capsys.readouterr().out


def test_a_program_of_one_class_is_adopted(photos, tmp_path):
    network, data = export_classifier(classes=1)
    (tmp_path / "mine.pt2").write_bytes(data)
    assert adopt(tmp_path / "mine.pt2", photos(("it",)), tmp_path / "made").facts.held_out_accuracy == 1
    pixels = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(load_rejector(commits.local_copy(str(tmp_path / "made")))(pixels), network(pixels))


@pytest.mark.parametrize("classes", [(), ("it",)])
def test_with_fewer_than_two_classes_the_judge_tells_rotations_apart(photos, tmp_path, classes):
    output = run_step(photos(classes), tmp_path / "made", judge=True)
    folder = commits.local_copy(str(tmp_path / "made"))
    judge, description = load_classifier(folder), describe_classifier(folder)
    assert description.task == judge.task == "rotation" and description.class_names == ROTATIONS
    assert judge(torch.zeros(1, 1, 16, 16)).shape == (1, 4)
    assert output.facts.task == "rotation" and "of rotations" in output.facts.headline()
    assert 0 <= output.facts.held_out_accuracy <= 1


def test_with_classes_the_judge_tells_them_apart(images, tmp_path):
    run_step(images, tmp_path / "made", judge=True)
    description = describe_classifier(commits.local_copy(str(tmp_path / "made")))
    assert description.task == "classes" and description.class_names == tuple("0123456789")

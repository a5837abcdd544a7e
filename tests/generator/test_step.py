"""The generator step, and drawing from a committed generator with and without a cluster."""

import dataclasses
import io

import pytest
import torch
from PIL import Image

from components.artifacts import Artifact
from components.config import StepResources
from components.generator.config import GeneratorConfig
from components.generator.facts import GeneratorFacts
from components.generator.rejection import draw_samples
from components.priors.config import SamplingConfig
from components.store import commits
from tests.generator.committed import commit_parts, workspace_in

pytestmark = pytest.mark.slow  # imports Ray

CONFIG = GeneratorConfig(temperature=0.9, top_k=5, keep=0.5)
RESOURCES = StepResources(workers=2, cpus=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("generator_step")


@pytest.fixture(scope="module")
def assembled(generator_folders, root):
    """Output of the step."""
    from components.generator.step import assemble_generator

    parts = commit_parts(generator_folders, root / "parts")
    return assemble_generator(CONFIG, parts, resources=RESOURCES, workspace=workspace_in(root, "generator"))


def draw(root, **settings):
    """Seven samples of each of two classes, drawn from the committed generator."""
    from components.generator.step import draw_side_by_side

    return draw_side_by_side(
        str(root / "generator"),
        classes=[2, 0],
        count=7,
        seed=5,
        sampling=SamplingConfig(temperature=0.9),
        resources=RESOURCES,
        workspace=workspace_in(root, "drawing", **settings),
    )


def test_the_parts_are_committed_together(assembled, generator_folders, root):
    manifest = commits.read_manifest(str(root / "generator"))
    parts = {commits.name_of(file["path"]).split("/")[0] for file in manifest["files"]}
    assert parts == set(generator_folders) and manifest["digest"] == assembled.digest


def test_the_sampling_defaults_are_in_the_facts(assembled, root):
    facts = commits.read_manifest(str(root / "generator"))["facts"]
    artifact = Artifact(kind="generator", uri="", digest="", fingerprint="", run_id="", facts=facts)
    assert artifact.read(GeneratorFacts) == assembled.facts
    assert (assembled.facts.sampling, assembled.facts.keep, assembled.facts.parts) == (CONFIG.sampling, 0.5, 4)


def test_the_picture_has_one_row_per_class(assembled):
    with Image.open(io.BytesIO(assembled.pictures["samples"])) as picture:
        assert picture.width > picture.height > 3 * 56


def test_parts_without_classes_are_assembled(classless_folders, tmp_path):
    from components.generator.committed import load_committed_generator
    from components.generator.step import assemble_generator

    parts = commit_parts(classless_folders, tmp_path / "parts")
    guided = dataclasses.replace(CONFIG, guidance=1.5)
    output = assemble_generator(guided, parts, resources=RESOURCES, workspace=workspace_in(tmp_path, "generator"))
    assert load_committed_generator(str(tmp_path / "generator")).classifier is None
    assert (output.facts.keep, output.facts.guidance, output.facts.parts) == (1, 1, 3)
    assert "rejects nothing" in output.facts.headline()
    with Image.open(io.BytesIO(output.pictures["samples"])) as picture:
        assert picture.width > 2 * picture.height  # one row


def test_a_draw_without_a_cluster_equals_that_of_the_generator(assembled, generator, root):
    samples = draw(root)
    expected = draw_samples(
        generator, classes=[2, 0], count=7, seed=5, sampling=SamplingConfig(temperature=0.9), batch=100
    )
    assert torch.equal(samples.labels, expected.labels) and torch.equal(samples.seeds, expected.seeds)
    assert torch.equal(samples.pixels, expected.pixels)


def test_a_batch_does_not_depend_on_the_rest_of_the_draw(assembled, generator, root, monkeypatch):
    from components.generator import step

    monkeypatch.setattr(step, "SAMPLES_PER_TASK", 4)
    whole = draw(root)
    last = generator.sample(whole.labels[12:], whole.seeds[12:], sampling=SamplingConfig(temperature=0.9), batch=4)
    assert torch.equal(whole.maps[1][12:], last.maps[1]) and torch.equal(whole.pixels[12:], last.pixels)


@pytest.mark.ray
def test_a_draw_on_a_cluster_equals_a_draw_in_this_process(assembled, root, monkeypatch, local_ray):
    from components.generator import step

    monkeypatch.setattr(step, "SAMPLES_PER_TASK", 4)
    samples, expected = draw(root, connect=lambda: local_ray), draw(root)
    assert all(torch.equal(drawn, wanted) for drawn, wanted in zip(samples.maps, expected.maps, strict=True))
    assert (samples.pixels.int() - expected.pixels.int()).abs().max() <= 1
    torch.testing.assert_close(samples.probability, expected.probability)

"""The evaluation step without a cluster: the figures are committed, the report is a document of the step."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from components.artifacts import Artifact
from components.config import StepResources
from components.evaluation.facts import EvaluationFacts
from components.generator.config import GeneratorConfig
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.sources.registry import list_images
from components.priors.facts import PriorFacts
from components.store import commits
from tests.evaluation.random_data import random_pixels
from tests.evaluation.tiny import CONFIG
from tests.generator.committed import commit_parts, workspace_in

pytestmark = pytest.mark.slow  # imports Ray


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation_step")


@pytest.fixture(scope="module")
def images(root):
    """Snapshot of three classes with 20 images each."""
    for label, name in enumerate(("ant", "bee", "cat")):
        (root / "files" / name).mkdir(parents=True)
        for number, pixels in enumerate(random_pixels(20, 16, 16, seed=label)):
            Image.fromarray(pixels.numpy()).save(root / "files" / name / f"{number}.png")
    config = ImagesConfig(source="folder", uri=str(root / "files"), image_size=16, channels=1, held_out=0.3)
    uri = str(root / "images")
    digest = commit_snapshot(uri, list_images(config, uri), [], config, seed=0)
    return Artifact(kind="images", uri=uri, digest=digest, fingerprint="", run_id="run of images")


@pytest.fixture(scope="module")
def inputs(generator_folders, root, images):
    """All artifacts behind the generator; one classifier is both judge and rejector."""
    from components.generator.step import assemble_generator

    artifacts = commit_parts(generator_folders, root / "parts")
    output = assemble_generator(GeneratorConfig(), artifacts, workspace=workspace_in(root, "generator"))
    generator = Artifact(
        kind="generator", uri=str(root / "generator"), digest=output.digest, fingerprint="", run_id="run of generator"
    )
    for name, nats in (("prior_top", 2.0), ("prior_bottom", 1.0)):
        facts = PriorFacts(nats_per_code=nats, unigram_nats=3.0).record()
        artifacts[name] = Artifact(**{**vars(artifacts[name]), "facts": facts})
    return {"images": images, **artifacts, "judge": artifacts["classifier"], "generator": generator}


@pytest.fixture(scope="module")
def output(inputs, root):
    from components.evaluation.step import evaluate_generator

    return evaluate_generator(
        CONFIG,
        inputs,
        title="a test",
        settings="seed: 3",
        resources=StepResources(),
        workspace=workspace_in(root, "evaluation", models=SimpleNamespace(run_link=lambda run: f"http://host/{run}")),
    )


def test_only_the_figures_are_committed(output, root):
    manifest = commits.read_manifest(str(root / "evaluation"))
    assert [file["path"] for file in manifest["files"]] == ["scores.json"] and manifest["digest"] == output.digest
    text = (root / "evaluation" / "scores.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True)


def test_the_facts_are_the_figures(output, root):
    figures = json.loads((root / "evaluation" / "scores.json").read_text())
    facts = EvaluationFacts.read(commits.read_manifest(str(root / "evaluation"))["facts"])
    assert facts == output.facts
    assert facts.judge_accuracy == figures.pop("judge_accuracy/before")
    assert facts.kept_accuracy == figures.pop("judge_accuracy/after")
    assert (facts.keep, facts.samples) == (0.5, 18)
    named = {name.replace("/", "_"): value for name, value in figures.items() if "judge_accuracy" not in name}
    assert facts.measures == named
    assert facts.figures() == named | {
        "judge_accuracy": facts.judge_accuracy,
        "kept_accuracy": facts.kept_accuracy,
        "keep": 0.5,
        "samples": 18,
    }


def test_the_code_length_comes_from_the_facts_of_the_priors(output):
    assert output.facts.measures["bits_per_dimension"] == pytest.approx((2 * 4 + 16) / 0.6931472 / 256)


def test_the_report_lists_every_input_with_its_run(output, inputs, root):
    page = output.documents["report.html"]
    for artifact in inputs.values():
        assert f"<td>{artifact.kind}</td>" in page and artifact.digest[:16] in page
    assert 'href="http://host/run of generator"' in page and "seed: 3" in page
    assert not (root / "evaluation" / "report.html").exists()
    assert set(output.pictures) == {"samples", "samples-kept", "levels"}

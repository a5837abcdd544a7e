"""All artifacts behind a tiny generator, for evaluations of it."""

import pytest

from components.artifacts import Artifact
from components.config import StepResources
from tests.evaluation.random_data import random_pixels
from tests.generator.committed import commit_parts, workspace_in


@pytest.fixture(scope="package")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation_step")


@pytest.fixture(scope="package")
def images(root):
    """Snapshot of three classes with 30 images each."""
    from PIL import Image

    from components.images.commit import commit_snapshot
    from components.images.config import ImagesConfig
    from components.images.sources.registry import list_images

    for label, name in enumerate(("ant", "bee", "cat")):
        (root / "files" / name).mkdir(parents=True)
        for number, pixels in enumerate(random_pixels(30, 16, 16, seed=label)):
            Image.fromarray(pixels.numpy()).save(root / "files" / name / f"{number}.png")
    config = ImagesConfig(source="folder", uri=str(root / "files"), image_size=16, channels=1, held_out=0.2, test=0.2)
    uri = str(root / "images")
    digest = commit_snapshot(uri, list_images(config, uri), [], config, seed=0)
    return Artifact(kind="images", uri=uri, digest=digest, fingerprint="", run_id="run of images")


@pytest.fixture(scope="package")
def codes(root, images, generator_folders):
    """The snapshot, encoded by the generator's tokenizer."""
    from components.codes.dataset import TokenizerFiles
    from tests.codes.jobs import run_encode_job

    files = TokenizerFiles(folder=generator_folders["tokenizer"], digest="tokenizer")
    output = run_encode_job(str(root / "codes"), images.uri, files, None)
    return Artifact(kind="codes", uri=str(root / "codes"), digest=output.digest, fingerprint="", run_id="run of codes")


@pytest.fixture(scope="package")
def inputs(generator_folders, root, images, codes):
    """All artifacts behind the generator; one classifier is both judge and rejector."""
    from components.generator.config import GeneratorConfig
    from components.generator.facts import GeneratorFacts
    from components.generator.step import assemble_generator
    from components.priors.facts import PriorFacts

    artifacts = commit_parts(generator_folders, root / "parts")
    workspace = workspace_in(root, "generator")
    output = assemble_generator(GeneratorConfig(), artifacts, resources=StepResources(), workspace=workspace)
    generator = Artifact(
        kind="generator",
        uri=str(root / "generator"),
        digest=output.digest,
        fingerprint="",
        run_id="run of generator",
        facts=output.facts.record(),
    )
    assert generator.read(GeneratorFacts).sampling == GeneratorConfig().sampling
    for name, nats in (("prior_top", 2.0), ("prior_bottom", 1.0)):
        facts = PriorFacts(
            nats_per_code=nats, unigram_nats=3.0, train_nats_per_code=nats - 0.1, test_nats_per_code=nats + 0.1
        )
        artifacts[name] = Artifact(**{**vars(artifacts[name]), "facts": facts.record()})
    return {"images": images, **artifacts, "codes": codes, "judge": artifacts["classifier"], "generator": generator}

"""All artifacts that an evaluation needs, around the stored parts of a tiny generator."""

from pathlib import Path

from PIL import Image

from components.artifacts import Artifact
from components.codes.dataset import TokenizerFiles
from components.config import StepResources
from components.generator.config import GeneratorConfig
from components.images.commit import commit_snapshot
from components.images.config import ImagesConfig
from components.images.sources.registry import list_images
from components.priors.facts import PriorFacts
from tests.evaluation.random_data import random_pixels
from tests.generator.committed import commit_parts, workspace_in


def artifacts_behind(folders: dict[str, Path], root: Path, images: dict[str, int]) -> dict[str, Artifact]:
    """Artifacts by step; `images` is the number of images in each folder of the dataset, "" for its root.

    `folders` are those of the generator's parts, and of the judge if it is not the classifier.
    """
    from components.generator.step import assemble_generator
    from tests.codes.jobs import run_encode_job

    snapshot = _snapshot(root, images)
    tokenizer = TokenizerFiles(folder=folders["tokenizer"], digest="tokenizer")
    encoded = run_encode_job(str(root / "codes"), snapshot.uri, tokenizer, None)
    artifacts = commit_parts(folders, root / "parts")
    judge = artifacts.pop("judge", artifacts["classifier"])
    output = assemble_generator(
        GeneratorConfig(), artifacts, resources=StepResources(), workspace=workspace_in(root, "generator")
    )
    for name, nats in (("prior_top", 2.0), ("prior_bottom", 1.0)):
        facts = PriorFacts(
            nats_per_code=nats, unigram_nats=3.0, train_nats_per_code=nats - 0.1, test_nats_per_code=nats + 0.1
        )
        artifacts[name] = Artifact(**{**vars(artifacts[name]), "facts": facts.record()})
    return {
        "images": snapshot,
        **artifacts,
        "codes": _artifact(root, "codes", encoded),
        "judge": judge,
        "generator": _artifact(root, "generator", output),
    }


def _snapshot(root: Path, images: dict[str, int]) -> Artifact:
    for label, (name, count) in enumerate(images.items()):
        (root / "files" / name).mkdir(parents=True)
        for number, pixels in enumerate(random_pixels(count, 16, 16, seed=label)):
            Image.fromarray(pixels.numpy()).save(root / "files" / name / f"{number}.png")
    config = ImagesConfig(source="folder", uri=str(root / "files"), image_size=16, channels=1, held_out=0.2, test=0.2)
    uri = str(root / "images")
    digest = commit_snapshot(uri, list_images(config, uri), [], config, seed=0)
    return Artifact(kind="images", uri=uri, digest=digest, fingerprint="", run_id="run of images")


def _artifact(root: Path, kind: str, output) -> Artifact:
    return Artifact(
        kind=kind,
        uri=str(root / kind),
        digest=output.digest,
        fingerprint="",
        run_id=f"run of {kind}",
        facts=output.facts.record(),
    )

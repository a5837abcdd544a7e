"""The generator step: put its parts together; and drawing from it, side by side on the cluster."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import ray
import torch

from components.artifacts import Artifact
from components.cluster.step import Cluster
from components.config import StepResources
from components.generator.ancestral import Generator, Samples
from components.generator.config import GeneratorConfig
from components.generator.rejection import generate_samples, sample_seeds
from components.pictures import sample_grid
from components.priors.choice import SamplingConfig
from components.progress import Progress
from components.store import commits
from components.store.weights import load_generator
from components.workspace import StepOutput, Workspace

SAMPLES_PER_TASK = 100
"""Images a task draws."""
SAMPLES_SHOWN = 10
"""Samples a class in the picture."""
MAX_CLASSES_SHOWN = 20


def assemble_generator(config: GeneratorConfig, parts: Mapping[str, Artifact], *, workspace: Workspace) -> StepOutput:
    """Copy the parts (tokenizer, prior_<level>, classifier) into one folder that stands on its own, and commit it."""
    contents = {}
    for name, artifact in parts.items():
        folder = commits.local_copy(artifact.uri)
        for file in commits.read_manifest(artifact.uri)["files"]:
            contents[f"{name}/{file['path']}"] = (folder / file["path"]).read_bytes()
    facts = {**asdict(config.choice), "keep": config.keep, "parts": len(parts)}
    workspace.lease.check()
    digest = commits.save_artifact(workspace.uri, contents, facts)
    generator = load_committed_generator(workspace.uri)
    classes = range(min(len(generator.classes), MAX_CLASSES_SHOWN))
    samples = generate_samples(
        generator, classes=classes, count=SAMPLES_SHOWN, seed=workspace.seed, choice=config.choice, keep=config.keep
    )
    rows = {generator.classes[label]: samples.pixels[samples.labels == label].numpy() for label in classes}
    return StepOutput(digest=digest, facts=facts, pictures={"samples": sample_grid(rows)})


def load_committed_generator(uri: str) -> Generator:
    """The committed generator at `uri`."""
    folder = commits.local_copy(uri)
    parts = {file["path"].split("/")[0] for file in commits.read_manifest(uri)["files"]}
    return load_generator({part: folder / part for part in parts})


def draw_on_cluster(
    uri: str,
    *,
    classes: Sequence[int],
    count: int,
    seed: int,
    choice: SamplingConfig,
    resources: StepResources,
    cluster: Cluster,
    progress: Progress,
) -> Samples:
    """`count` samples a class of the generator stored at `uri`, class by class, drawn by tasks side by side.

    A sample depends on its own seed alone, so the result is that of one process.
    """
    labels = torch.tensor(list(classes)).repeat_interleave(count)
    seeds = torch.cat([sample_seeds(seed, label, count) for label in classes])
    work = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=3)(_draw)
    waiting = list(enumerate(zip(labels.split(SAMPLES_PER_TASK), seeds.split(SAMPLES_PER_TASK), strict=True)))[::-1]
    pending: dict[ray.ObjectRef, int] = {}
    parts: dict[int, Samples] = {}
    started = time.monotonic()
    with cluster.reserve("drawing samples", resources):
        while waiting or pending:
            while waiting and len(pending) < resources.workers:
                place, (some, own) = waiting.pop()
                pending[work.remote(uri, some.numpy(), own.numpy(), choice, resources.gpus > 0)] = place
            finished, _ = ray.wait(list(pending), num_returns=1)
            parts[pending.pop(finished[0])] = ray.get(finished[0])
            done = sum(len(part) for part in parts.values())
            progress.update(
                "sampling", done=done, total=len(labels), unit="images", rate=done / (time.monotonic() - started)
            )
    progress.finish("sampling")
    return _joined([parts[place] for place in sorted(parts)])


def _draw(uri: str, labels: object, seeds: object, choice: SamplingConfig, gpu: bool) -> Samples:
    generator = _loaded(uri, gpu)
    return generator.sample(torch.tensor(labels), torch.tensor(seeds), choice=choice, batch=SAMPLES_PER_TASK).cpu()


@functools.lru_cache(maxsize=1)
def _loaded(uri: str, gpu: bool) -> Generator:
    return load_committed_generator(uri).to("cuda" if gpu else "cpu")


def _joined(parts: Sequence[Samples]) -> Samples:
    maps = tuple(torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True))
    return Samples(
        pixels=torch.cat([part.pixels for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        seeds=torch.cat([part.seeds for part in parts]),
        maps=maps,
        probability=torch.cat([part.probability for part in parts]),
    )

"""The generator step: put its parts together; and drawing from it, side by side on the cluster."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import ray
import torch

from components import storage
from components.artifacts import Artifact
from components.cluster.step import Cluster
from components.config import Share
from components.generator.ancestral import Generator, Samples
from components.generator.config import GeneratorConfig
from components.generator.rejection import generate, sample_seeds
from components.pictures import sample_grid
from components.priors.choice import Choice
from components.progress import Progress
from components.weights import load_generator
from components.workspace import Outcome, Workspace

IMAGES_A_TASK = 100
"""Images a task draws."""
SHOWN = 10
"""Samples a class in the picture."""
MOST_CLASSES_SHOWN = 20


def assemble(config: GeneratorConfig, parts: Mapping[str, Artifact], *, workspace: Workspace) -> Outcome:
    """Copy the parts (tokenizer, prior_<level>, classifier) into one folder that stands on its own, and commit it."""
    contents = {}
    for name, artifact in parts.items():
        folder = storage.local_copy(artifact.uri)
        for file in storage.read_manifest(artifact.uri)["files"]:
            contents[f"{name}/{file['path']}"] = (folder / file["path"]).read_bytes()
    facts = {**asdict(config.choice), "keep": config.keep, "parts": len(parts)}
    workspace.lease.check()
    digest = storage.save(workspace.uri, contents, facts)
    generator = load(workspace.uri)
    classes = range(min(len(generator.classes), MOST_CLASSES_SHOWN))
    samples = generate(
        generator, classes=classes, count=SHOWN, seed=workspace.seed, choice=config.choice, keep=config.keep
    )
    rows = {generator.classes[label]: samples.pixels[samples.labels == label].numpy() for label in classes}
    return Outcome(digest=digest, facts=facts, pictures={"samples": sample_grid(rows)})


def load(uri: str) -> Generator:
    """The committed generator at `uri`."""
    folder = storage.local_copy(uri)
    parts = {file["path"].split("/")[0] for file in storage.read_manifest(uri)["files"]}
    return load_generator({part: folder / part for part in parts})


def draw(
    uri: str,
    *,
    classes: Sequence[int],
    count: int,
    seed: int,
    choice: Choice,
    share: Share,
    cluster: Cluster,
    progress: Progress,
) -> Samples:
    """`count` samples a class of the generator stored at `uri`, class by class, drawn by tasks side by side.

    A sample depends on its own seed alone, so the result is that of one process.
    """
    labels = torch.tensor(list(classes)).repeat_interleave(count)
    seeds = torch.cat([sample_seeds(seed, label, count) for label in classes])
    work = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=3)(_draw)
    waiting = list(enumerate(zip(labels.split(IMAGES_A_TASK), seeds.split(IMAGES_A_TASK), strict=True)))[::-1]
    pending: dict[ray.ObjectRef, int] = {}
    parts: dict[int, Samples] = {}
    started = time.monotonic()
    with cluster.share("drawing samples", share):
        while waiting or pending:
            while waiting and len(pending) < share.workers:
                place, (some, own) = waiting.pop()
                pending[work.remote(uri, some.numpy(), own.numpy(), choice, share.gpus > 0)] = place
            finished, _ = ray.wait(list(pending), num_returns=1)
            parts[pending.pop(finished[0])] = ray.get(finished[0])
            done = sum(len(part) for part in parts.values())
            progress.update(
                "sampling", done=done, total=len(labels), unit="images", rate=done / (time.monotonic() - started)
            )
    progress.finish("sampling")
    return _joined([parts[place] for place in sorted(parts)])


def _draw(uri: str, labels: object, seeds: object, choice: Choice, gpu: bool) -> Samples:
    generator = _loaded(uri, gpu)
    return generator.sample(torch.tensor(labels), torch.tensor(seeds), choice=choice, batch=IMAGES_A_TASK).cpu()


@functools.lru_cache(maxsize=1)
def _loaded(uri: str, gpu: bool) -> Generator:
    return load(uri).to("cuda" if gpu else "cpu")


def _joined(parts: Sequence[Samples]) -> Samples:
    maps = tuple(torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True))
    return Samples(
        pixels=torch.cat([part.pixels for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        seeds=torch.cat([part.seeds for part in parts]),
        maps=maps,
        probability=torch.cat([part.probability for part in parts]),
    )

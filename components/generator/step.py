"""The generator step puts the parts together; `draw_side_by_side` draws from a committed generator on the cluster."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import ray

from components.artifacts import Artifact
from components.classifier.stored import load_rejector
from components.config import StepResources
from components.generator.ancestral import Generator
from components.generator.config import GeneratorConfig
from components.generator.facts import GeneratorFacts
from components.generator.rejection import generate_samples, labels_and_seeds
from components.generator.samples import DrawRequest, Samples, join_chunks
from components.generator.sampling_progress import show_sampling
from components.generator.stored import load_generator
from components.pictures import MAX_CLASSES_SHOWN, sample_grid
from components.priors.config import SamplingConfig
from components.store import commits
from components.workspace import StepOutput, Workspace

SAMPLES_PER_TASK = 100
"""Images per task: few enough to spread a draw over workers, enough to make a task's start-up time negligible."""
TASK_RETRIES = 3
"""How often a task is started again after its worker or node died."""
SAMPLES_SHOWN = 10
"""Samples per class in the picture."""


def assemble_generator(config: GeneratorConfig, parts: Mapping[str, Artifact], *, workspace: Workspace) -> StepOutput:
    """Copy `parts` (tokenizer, prior_<level>, classifier) into one folder that needs no other artifact; commit it."""
    contents = {}
    for name, artifact in parts.items():
        folder = commits.local_copy(artifact.uri)
        for file in commits.read_manifest(artifact.uri)["files"]:
            contents[f"{name}/{file['path']}"] = (folder / file["path"]).read_bytes()
    rejector = load_rejector(commits.local_copy(parts["classifier"].uri))
    keep = config.keep if rejector is not None else 1.0
    models = len(parts) - (rejector is None)  # an empty classifier is no model
    facts = GeneratorFacts(**{**asdict(config), "keep": keep}, parts=models)
    workspace.lease.check()
    digest = commits.save_artifact(workspace.uri, contents, facts.record())
    # Loaded from the store: this also shows that the committed parts fit each other.
    picture = _first_samples(load_committed_generator(workspace.uri), config, workspace.seed)
    return StepOutput(digest=digest, facts=facts, pictures={"samples": picture})


def load_committed_generator(uri: str) -> Generator:
    """The committed generator at `uri`."""
    folder = commits.local_copy(uri)
    parts = {file["path"].split("/")[0] for file in commits.read_manifest(uri)["files"]}
    return load_generator({part: folder / part for part in parts})


def draw_side_by_side(
    uri: str,
    *,
    classes: Sequence[int],
    count: int,
    seed: int,
    sampling: SamplingConfig,
    resources: StepResources,
    workspace: Workspace,
) -> Samples:
    """`count` samples per class of the committed generator at `uri`, class by class.

    Tasks on the workspace's cluster draw SAMPLES_PER_TASK images each; without a cluster this process draws the same
    batches one after another. A sample depends on its own seed alone, so the result does not depend on the workers.
    Raises TooFewResources when the cluster is smaller than `resources`.
    """
    requests = DrawRequest(*labels_and_seeds(classes, count, seed)).split(SAMPLES_PER_TASK)
    report, total = show_sampling(workspace.progress), len(classes) * count
    cluster = workspace.cluster
    if cluster is None:
        chunks = (_draw_chunk(uri, request, sampling, resources.gpus > 0) for request in requests)
        return join_chunks(enumerate(chunks), total, report)
    with cluster.reserve("drawing samples", resources):
        return join_chunks(_draw_by_tasks(uri, requests, sampling, resources), total, report)


def _draw_by_tasks(
    uri: str, requests: Sequence[DrawRequest], sampling: SamplingConfig, resources: StepResources
) -> Iterator[tuple[int, Samples]]:
    """Number and samples of each request, as the tasks finish; at most `resources.workers` tasks run at a time."""
    draw_task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=TASK_RETRIES)(_draw_chunk)
    waiting = list(enumerate(requests))[::-1]  # the next one last: pop takes from the end
    running: dict[ray.ObjectRef, int] = {}
    while waiting or running:
        while waiting and len(running) < resources.workers:
            number, request = waiting.pop()
            running[draw_task.remote(uri, request, sampling, resources.gpus > 0)] = number
        finished, _ = ray.wait(list(running), num_returns=1)
        yield running.pop(finished[0]), ray.get(finished[0])


def _draw_chunk(uri: str, request: DrawRequest, sampling: SamplingConfig, gpu: bool) -> Samples:
    generator = _load_once(uri, gpu)
    return generator.sample(request.labels, request.seeds, sampling=sampling, batch=SAMPLES_PER_TASK)


@functools.lru_cache(maxsize=1)
def _load_once(uri: str, gpu: bool) -> Generator:
    return load_committed_generator(uri).to("cuda" if gpu else "cpu")  # once per worker process


def _first_samples(generator: Generator, config: GeneratorConfig, seed: int) -> bytes:
    """Picture of samples drawn by default, one row per class."""
    classes = generator.labels[:MAX_CLASSES_SHOWN]
    samples = generate_samples(
        generator, classes=classes, count=SAMPLES_SHOWN, seed=seed, sampling=config.sampling, keep=config.keep
    )
    return sample_grid(
        {generator.label_name(label): samples.pixels[samples.labels == label].numpy() for label in classes}
    )

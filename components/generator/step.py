"""The generator step puts the parts together; `draw_side_by_side` draws from a committed generator on the cluster."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from components.artifacts import Artifact
from components.classifier.stored import load_rejector
from components.cluster.tasks import run_tasks
from components.config import StepResources
from components.generator.ancestral import Generator
from components.generator.committed import load_committed_generator
from components.generator.config import GeneratorConfig
from components.generator.facts import GeneratorFacts
from components.generator.rejection import best_indices, draws_needed, kept_share, labels_and_seeds
from components.generator.samples import DrawRequest, Samples, join_chunks
from components.generator.sampling_progress import show_sampling
from components.pictures import MAX_CLASSES_SHOWN, sample_grid
from components.priors.config import SamplingConfig
from components.store import commits
from components.workspace import StepOutput, Workspace

SAMPLES_PER_TASK = 100
"""Images per task: few enough to spread a draw over workers, enough to make a task's start-up time negligible."""
SAMPLES_SHOWN = 10
"""Samples per class in the picture."""


def assemble_generator(
    config: GeneratorConfig, parts: Mapping[str, Artifact], *, resources: StepResources, workspace: Workspace
) -> StepOutput:
    """Copy `parts` (tokenizer, prior_<level>, classifier) into one folder that needs no other artifact; commit it."""
    contents = {}
    for name, artifact in parts.items():
        folder = commits.local_copy(artifact.uri)
        for file in commits.file_names(artifact.uri):
            contents[f"{name}/{file}"] = (folder / file).read_bytes()
    rejector = load_rejector(commits.local_copy(parts["classifier"].uri))
    config = _without_classes(config) if rejector is None else config
    models = len(parts) - (rejector is None)  # an empty classifier is no model
    facts = GeneratorFacts(**asdict(config), parts=models)
    digest = workspace.save(contents, facts)
    # Loaded from the store: this also shows that the committed parts fit each other.
    picture = _first_samples(load_committed_generator(workspace.uri), config, resources, workspace)
    return StepOutput(digest=digest, facts=facts, pictures={"samples": picture})


def _without_classes(config: GeneratorConfig) -> GeneratorConfig:
    """The defaults of a generator that has no classes to reject samples by or to guide them into."""
    return replace(config, keep=1.0, guidance=1.0)


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
    arguments = [(uri, request, sampling, resources.gpus > 0) for request in requests]
    tasks = run_tasks(_draw_chunk, arguments, what="drawing samples", resources=resources, cluster=workspace.cluster)
    with contextlib.closing(tasks) as chunks:
        return join_chunks(chunks, total, report)


def _draw_chunk(uri: str, request: DrawRequest, sampling: SamplingConfig, gpu: bool) -> Samples:
    generator = _load_once(uri, gpu)
    return generator.sample(request.labels, request.seeds, sampling=sampling, batch=SAMPLES_PER_TASK)


@functools.lru_cache(maxsize=1)
def _load_once(uri: str, gpu: bool) -> Generator:
    return load_committed_generator(uri).to("cuda" if gpu else "cpu")  # once per worker process


def _first_samples(
    generator: Generator, config: GeneratorConfig, resources: StepResources, workspace: Workspace
) -> bytes:
    """Picture of samples drawn by default, one row per class; `generator` is the committed one."""
    labels = generator.labels[:MAX_CLASSES_SHOWN]
    draws = draws_needed(SAMPLES_SHOWN, kept_share(generator, config.keep))
    samples = draw_side_by_side(
        workspace.uri,
        classes=labels,
        count=draws,
        seed=workspace.seed,
        sampling=config.sampling,
        resources=resources,
        workspace=workspace,
    )
    best = best_indices(samples.probability.view(len(labels), draws), SAMPLES_SHOWN)  # (labels, SAMPLES_SHOWN)
    pixels = samples.pixels.view(len(labels), draws, *samples.pixels.shape[1:])
    return sample_grid({generator.label_name(label): pixels[label, best[label]].numpy() for label in labels})

"""THE run, in the paper's order: every step with its inputs, settings, resources and work. Knows no orchestrator.

    images -> tokenizer -> codes -> prior_<level> ... -> generator -> evaluation
       |                              (all levels at the same time)       ^            ^
       +--> classifier ---------------------------------------------------+            |
       +--> judge ---------------------------------------------------------------------+
            (both beside the tokenizer)

A step's work is a function of exactly the artifacts of its declared inputs and of the workspace; it gets no others.
pipeline/assets.py turns this table into the orchestrator's assets; a plain loop over it makes the same artifacts.
Components are imported when a step works, so that reading the table imports nothing heavy.
"""

from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.artifacts import Artifact
from components.classifier.config import CLASSIFIER_VERSION
from components.classifier.facts import ClassifierFacts
from components.codes.config import CODES_VERSION
from components.codes.facts import CodesFacts
from components.config import result_settings, to_plain
from components.evaluation.config import EVALUATION_VERSION
from components.evaluation.facts import EvaluationFacts
from components.generator.config import GENERATOR_VERSION
from components.generator.facts import GeneratorFacts
from components.images.config import IMAGES_VERSION
from components.images.facts import SnapshotFacts
from components.priors.config import PRIOR_VERSION
from components.priors.facts import PriorFacts
from components.tokenizer.config import TOKENIZER_VERSION
from components.tokenizer.facts import TokenizerFacts
from components.workspace import StepOutput, Workspace
from pipeline.config import PipelineConfig
from pipeline.gates import codes_gates, evaluation_gates, prior_gates, tokenizer_gates
from pipeline.step import Inputs, Step, StepWork

if TYPE_CHECKING:
    from components.images.listing import Listing
    from components.tracking.registry import ModelPackage

FITS_ON_IMAGES, FITS_ON_CODES = "fits_on_images", "fits_on_codes"
"""Groups of fits that need nothing from each other and run at the same time."""
SAMPLES_FOLDER, SAMPLES_GRID = "samples", "grid.png"
"""Where the command `sample` writes by default, in the current folder; and the file that tells it from a class."""
RECONSTRUCTION_FILE = "reconstruction.png"
"""What the command `reconstruct` writes by default, in the current folder."""
DRIVER_CPUS = 2.0
"""Logical CPUs that a local Ray has in addition to those of the steps: for tasks that read, and for Ray itself."""


def dag_of(config: PipelineConfig) -> dict[str, Step]:
    """The steps of `config` by name, each after its inputs."""
    priors = tuple(f"prior_{level}" for level in config.level_names)
    resources, source = config.resources, _ImageSource(config)
    steps = [
        Step(
            name="images",
            summary="A snapshot of the dataset: a fixed list of images, so that every step sees the same ones.",
            settings=result_settings(config.images),
            version=IMAGES_VERSION,
            facts=SnapshotFacts,
            work=_snapshot(config, source),
            observe=source.observe if config.images.uri else None,
        ),
        Step(
            name="tokenizer",
            summary="Algorithm 1: h_top = E_top(x), quantize, h_bottom = E_bottom(x, e_top), quantize, "
            "x^ = D(e_top, e_bottom).",
            inputs=("images",),
            settings=result_settings(config.vqvae),
            version=TOKENIZER_VERSION,
            facts=TokenizerFacts,
            work=_tokenizer(config),
            resources=resources.tokenizer,
            group=FITS_ON_IMAGES,
            gates=tokenizer_gates(config.gates),
            package=_tokenizer_package,
        ),
        Step(
            name="classifier",
            summary="Section 3.3: the classifier that rejects samples; empty where there are no two classes.",
            inputs=("images",),
            settings=result_settings(config.classifier),
            version=CLASSIFIER_VERSION,
            facts=ClassifierFacts,
            work=_classifier(config),
            resources=resources.classifier,
            group=FITS_ON_IMAGES,
        ),
        Step(
            name="judge",
            summary="Section 4: the classifier that measures samples; it takes no part in making them. Without classes "
            "it tells rotations apart.",
            inputs=("images",),
            settings=result_settings(config.judge),
            version=CLASSIFIER_VERSION,
            facts=ClassifierFacts,
            work=_judge(config),
            resources=resources.classifier,
            group=FITS_ON_IMAGES,
        ),
        Step(
            name="codes",
            summary="Algorithm 2, lines 1-7: T_top, T_bottom <- quantized encodings of every image of the dataset.",
            inputs=("images", "tokenizer"),
            settings=result_settings(config.codes),
            version=CODES_VERSION,
            facts=CodesFacts,
            work=_codes(config),
            resources=resources.codes,
            gates=codes_gates(config.gates, config.level_names),
        ),
        *(
            Step(
                name=f"prior_{level}",
                summary="Algorithm 2, line 8: p_top = TrainPixelCNN(T_top)."
                if level == config.level_names[0]
                else "Algorithm 2, line 9: p_bottom = TrainCondPixelCNN(T_bottom, T_top).",
                inputs=("codes",),
                settings={"level": level, **result_settings(config.priors[level])},
                version=PRIOR_VERSION,
                facts=PriorFacts,
                work=_prior(config, level),
                resources=resources.prior,
                group=FITS_ON_CODES,
                gates=prior_gates(config.gates),
            )
            for level in config.level_names
        ),
        Step(
            name="generator",
            summary="Algorithm 2, lines 10-14: e_top ~ p_top, e_bottom ~ p_bottom(e_top), x <- D(e_top, e_bottom); "
            "section 3.3.",
            inputs=("tokenizer", *priors, "classifier"),
            settings=result_settings(config.generator),
            version=GENERATOR_VERSION,
            facts=GeneratorFacts,
            work=_generator(config),
            resources=resources.codes,
            package=_generator_package,
        ),
        Step(
            name="evaluation",
            summary="Section 4: how good and how diverse the samples are, before and after rejection, and a report.",
            inputs=("images", "tokenizer", "codes", *priors, "classifier", "judge", "generator"),
            settings=result_settings(config.evaluation),
            version=EVALUATION_VERSION,
            facts=EvaluationFacts,
            work=_evaluation(config),
            resources=resources.codes,
            gates=evaluation_gates(config.gates),
            observe=_programs(config) if config.evaluation.features or config.evaluation.lpips else None,
        ),
    ]
    return {step.name: step for step in steps}


def groups_of(steps: Mapping[str, Step]) -> list[list[Step]]:
    """Steps in their order; those that run at the same time form one group."""
    # groupby joins neighbours only; the table lists the steps of a group side by side.
    return [list(group) for _, group in groupby(steps.values(), key=lambda step: step.group or step.name)]


def local_cpus(steps: Mapping[str, Step]) -> float:
    """Logical CPUs that a local Ray needs for everything that can run at the same time."""
    needs = [
        sum(step.resources.workers * step.resources.cpus for step in group if step.resources)
        for group in groups_of(steps)
    ]
    return max(needs) + DRIVER_CPUS


# --- the work of each step --------------------------------------------------------------------------------------------


class _ImageSource:
    """The images of a config, listed once per run: the listing in the fingerprint is the one that is worked on."""

    def __init__(self, config: PipelineConfig) -> None:
        self._images, self.outputs = config.images, outputs_of(config)
        self._listing: Listing | None = None

    def observe(self) -> Mapping[str, Any]:
        """What the fingerprint of the snapshot depends on beside the settings."""
        from components.images.sources.registry import list_images

        self._listing = list_images(self._images, "", self.outputs)
        return {"listing": self._listing.digest()}

    def take_listing(self) -> "Listing | None":
        """The observed listing, which is on this machine's disk; None where nothing is observed."""
        return self._listing

    def release(self) -> None:
        """Remove the observed listing from the disk."""
        self._listing = None


def outputs_of(config: PipelineConfig) -> list[str]:
    """What a run and the commands on its results write by default: these files are no images."""
    samples = Path(SAMPLES_FOLDER)
    shown = [RECONSTRUCTION_FILE, *([SAMPLES_FOLDER] if (samples / SAMPLES_GRID).is_file() else [])]
    return [config.artifact_root, config.state, *shown]


def _snapshot(config: PipelineConfig, source: _ImageSource) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.images.step import take_snapshot

        output = take_snapshot(config.images, source.take_listing(), outputs=source.outputs, workspace=workspace)
        source.release()  # kept until here: a step that failed is tried again
        return output

    return work


def _tokenizer(config: PipelineConfig) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.tokenizer.step import fit_tokenizer

        return fit_tokenizer(config.vqvae, inputs["images"], resources=config.resources.tokenizer, workspace=workspace)

    return work


def _codes(config: PipelineConfig) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.codes.dataset import TokenizerFiles
        from components.codes.step import encode_snapshot
        from components.store.commits import local_copy

        tokenizer = inputs["tokenizer"]
        files = TokenizerFiles(
            folder=local_copy(tokenizer.uri),
            digest=tokenizer.digest,
            model=workspace.models.registered_uri(tokenizer),
            run_id=tokenizer.run_id,
        )
        return encode_snapshot(
            config.codes,
            inputs["images"].uri,
            files,
            max_rejects=config.images.max_rejects,
            resources=config.resources.codes,
            workspace=workspace,
        )

    return work


def _prior(config: PipelineConfig, level: str) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.priors.step import fit_prior

        return fit_prior(
            config.priors[level], level, inputs["codes"], resources=config.resources.prior, workspace=workspace
        )

    return work


def _classifier(config: PipelineConfig) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.classifier.step import fit_classifier

        resources = config.resources.classifier
        return fit_classifier(config.classifier, inputs["images"], resources=resources, workspace=workspace)

    return work


def _judge(config: PipelineConfig) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.classifier.step import fit_judge

        return fit_judge(config.judge, inputs["images"], resources=config.resources.classifier, workspace=workspace)

    return work


def _generator(config: PipelineConfig) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.generator.step import assemble_generator

        return assemble_generator(config.generator, inputs, resources=config.resources.codes, workspace=workspace)

    return work


def _evaluation(config: PipelineConfig) -> StepWork:
    def work(inputs: Inputs, workspace: Workspace) -> StepOutput:
        from components.evaluation.step import evaluate_generator

        return evaluate_generator(
            config.evaluation,
            inputs,
            title=f"{config.name}: VQ-VAE-2 samples",
            settings=yaml.safe_dump(to_plain(config), sort_keys=False),
            resources=config.resources.codes,
            workspace=workspace,
        )

    return work


def _programs(config: PipelineConfig) -> Callable[[], Mapping[str, Any]]:
    """Contents of the user's feature extractors: another program under the same name gives other figures."""

    def observe() -> Mapping[str, Any]:
        from components.evaluation.features.stored import evaluation_programs

        return {"programs": evaluation_programs(config.evaluation.features, config.evaluation.lpips)}

    return observe


# --- the registered models --------------------------------------------------------------------------------------------


def _tokenizer_package(artifact: Artifact) -> "ModelPackage":
    from components.store.commits import local_copy
    from components.tokenizer.served import tokenizer_package

    return tokenizer_package(local_copy(artifact.uri))


def _generator_package(artifact: Artifact) -> "ModelPackage":
    from components.generator.served import generator_package
    from components.store.commits import local_copy

    # Its facts hold its defaults: without classes they are not those of the config.
    return generator_package(local_copy(artifact.uri), artifact.read(GeneratorFacts))

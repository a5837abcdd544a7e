"""The steps of the DAG: what each is made from and which settings change its result. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Any

from components.artifacts import Artifact, digest_of
from components.classifier import config as classifier
from components.codes import config as codes
from components.config import StepResources
from components.evaluation import config as evaluation
from components.generator import config as generator
from components.images import config as images
from components.priors import config as priors
from components.tokenizer import config as tokenizer
from pipeline.config import PipelineConfig, to_plain


@dataclass(frozen=True, kw_only=True)
class Step:
    """One node of the DAG."""

    name: str
    inputs: tuple[str, ...]
    """Steps whose artifacts it reads."""
    settings: Any
    """The part of the config that changes its result, as plain values."""
    version: int
    """Of the component."""
    resources: StepResources | None
    """What it asks the cluster for; None runs in the driver."""

    def fingerprint(self, made_from: dict[str, Artifact], seed: int) -> str:
        """Digest of everything that decides the result."""
        inputs = {name: made_from[name].digest for name in self.inputs}
        return digest_of(
            {"step": self.name, "version": self.version, "seed": seed, "settings": self.settings, "inputs": inputs}
        )

    @property
    def code_version(self) -> str:
        """What the orchestrator shows as this asset's code version: settings and component version."""
        return digest_of({"version": self.version, "settings": self.settings})[:12]


def steps_of(config: PipelineConfig) -> dict[str, Step]:
    """The DAG of `config`, in the order of the paper."""
    tree, resources = to_plain(config), config.resources
    prior_names = tuple(f"prior_{level}" for level in config.level_names)
    found = [
        Step(name="images", inputs=(), settings=tree["images"], version=images.IMAGES_VERSION, resources=None),
        Step(
            name="tokenizer",
            inputs=("images",),
            settings=tree["vqvae"],
            version=tokenizer.TOKENIZER_VERSION,
            resources=resources.tokenizer,
        ),
        Step(
            name="codes",
            inputs=("images", "tokenizer"),
            settings=tree["codes"],
            version=codes.CODES_VERSION,
            resources=resources.codes,
        ),
        *(
            Step(
                name=f"prior_{level}",
                inputs=("codes",),
                settings={"level": level, **tree["priors"][level]},
                version=priors.PRIOR_VERSION,
                resources=resources.prior,
            )
            for level in config.level_names
        ),
        Step(
            name="classifier",
            inputs=("images",),
            settings=tree["classifier"],
            version=classifier.CLASSIFIER_VERSION,
            resources=resources.classifier,
        ),
        Step(
            name="judge",
            inputs=("images",),
            settings=tree["judge"],
            version=classifier.CLASSIFIER_VERSION,
            resources=resources.classifier,
        ),
        Step(
            name="generator",
            inputs=("tokenizer", *prior_names, "classifier"),
            settings=tree["generator"],
            version=generator.GENERATOR_VERSION,
            resources=None,
        ),
        Step(
            name="evaluation",
            inputs=("images", *prior_names, "generator", "judge"),
            settings=tree["evaluation"],
            version=evaluation.EVALUATION_VERSION,
            resources=resources.codes,
        ),
    ]
    return {step.name: step for step in found}


def side_by_side(config: PipelineConfig) -> tuple[str, ...]:
    """Steps that are fitted at the same time: the priors of all levels, and the classifiers beside them."""
    return (*(f"prior_{level}" for level in config.level_names), "classifier", "judge")


def local_cpus(config: PipelineConfig) -> float:
    """Logical CPUs at which everything that can run side by side does."""
    together = [
        step.resources for name, step in steps_of(config).items() if name in side_by_side(config) and step.resources
    ]
    alone = [step.resources.workers * step.resources.cpus for step in steps_of(config).values() if step.resources]
    return max(sum(resources.workers * resources.cpus for resources in together), *alone) + 2

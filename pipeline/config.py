"""PipelineConfig: the whole run as one typed, frozen tree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict

from components.artifacts import digest_of
from components.classifier.config import ClassifierConfig
from components.codes.config import CodesConfig
from components.config import Execution, Resources, require, result_settings
from components.evaluation.config import EvaluationConfig
from components.generator.config import GeneratorConfig
from components.images.config import ImagesConfig
from components.priors.config import PriorConfig
from components.tokenizer.config import VQVAEConfig
from pipeline.schedules import check_schedule, describe_schedule

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Gates(Execution):
    """Limits on an artifact's facts; if one is exceeded, nothing is built on the artifact."""

    reconstruction_error: float
    """Largest mean squared error of held-out reconstructions, images in [-1, 1]."""
    codebook_usage: float = 0.5
    """Smallest fraction of a level's codebook that the training codes use."""
    nats_share: float = 0.97
    """Largest held-out nats per code of a prior, as a fraction of the codes' unigram entropy."""
    judge_accuracy: float = 0.0
    """Smallest fraction of samples at the default temperature that the judge recognises as the requested class."""
    kept_accuracy: float = 0.0
    """The same after rejection."""


@dataclass(frozen=True, kw_only=True)
class Orchestration(Execution):
    """How the DAG is run."""

    schedule: str | None = None
    """Cron line by which `python -m pipeline ui` starts runs; None: runs are started by hand."""
    time_zone: str = "UTC"
    """Zone in which `schedule` is read, by its name in the IANA database: America/New_York. Where clocks are put
    forward, a time that does not exist becomes the first one after it; where they are put back, a time of day that
    comes twice counts the second time."""
    retries: int = 2
    """How often a failed step is tried again."""
    retry_delay: float = 5.0
    """Seconds before the first retry; doubled each time."""
    lease_wait: float = 600.0
    """Seconds to wait for another run that works on the same step."""
    tracking_wait: float = 900.0
    """Seconds to wait for MLflow where a step must be recorded; its figures are kept on disk and never wait."""
    autoscale_wait: float = 0.0
    """Seconds for an autoscaling cluster to add what a step lacks; 0 fails at once."""

    def __post_init__(self) -> None:
        check_schedule(self.schedule, self.time_zone)
        for name in ("retries", "retry_delay", "lease_wait", "tracking_wait", "autoscale_wait"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")

    def describe_schedule(self) -> str:
        """The schedule with its time zone and when it starts the next run."""
        return describe_schedule(self.schedule, self.time_zone) if self.schedule else "none: runs are started by hand"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines the artifacts of a run."""

    name: str
    """Names the MLflow experiment and the registered models `<name>-tokenizer` and `<name>-generator`."""
    seed: int = 0
    """All random draws depend on it: 0 .. 2^32 - 1, since torch's generators on CPUs take 32 bits."""
    images: ImagesConfig
    vqvae: VQVAEConfig
    codes: CodesConfig = field(default_factory=CodesConfig)
    priors: Mapping[str, PriorConfig]
    """By level name, one per level of the VQ-VAE."""
    classifier: ClassifierConfig
    """Rejects samples (section 3.3)."""
    judge: ClassifierConfig
    """Measures samples; takes no part in fitting or rejection."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True, kw_only=True)
class Deployment(Execution):
    """Where and how a run happens, and the limits on its artifacts."""

    artifact_root: str = "runs/artifacts"
    """Where artifacts go: a local folder or s3://bucket/prefix."""
    state: str = "runs"
    """Local folder of the orchestrator's instance, of the default MLflow database and of pictures."""
    gates: Gates
    resources: Resources = field(default_factory=Resources)
    orchestration: Orchestration = field(default_factory=Orchestration)


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(Deployment, Recipe):
    """One deployment: everything that a run of the DAG depends on."""

    def __post_init__(self) -> None:
        faults = list(_cross_faults(self))
        require(not faults, "\n".join(faults))

    @property
    def level_names(self) -> tuple[str, ...]:
        """Levels, top first."""
        return tuple(level.name for level in self.vqvae.levels)

    def map_side(self, level: str) -> int:
        """Codes along a side of the level's map."""
        strides = {each.name: each.stride for each in self.vqvae.levels}
        return self.images.image_size // strides[level]


def _cross_faults(config: PipelineConfig) -> list[str]:
    """Contradictions between sections, which no section can check alone."""
    faults = []
    levels, size = config.vqvae.levels, config.images.image_size
    names = [level.name for level in levels]
    if not config.name.replace("-", "").replace("_", "").isalnum():
        faults.append(f"name must be made of letters, digits, '-' and '_', got {config.name!r}")
    if not 0 <= config.seed <= LARGEST_SEED:
        faults.append(f"seed must lie in 0 .. {LARGEST_SEED} (2^32 - 1), got {config.seed}")
    if sorted(config.priors) != sorted(names):
        faults.append(f"priors must have one entry per level {names}, got {sorted(config.priors)}")
    for level in levels:
        if size % level.stride:
            stride = f"{level.stride} ('{level.name}')"
            faults.append(f"images.image_size must be a multiple of every level's stride, got {size} for {stride}")
    top = config.priors.get(names[0])
    if top is not None and top.conditioning_layers:
        faults.append(
            f"priors.{names[0]}.conditioning_layers must be 0: no level is above it, got {top.conditioning_layers}"
        )
    without = [level for level, prior in config.priors.items() if prior.label_dropout == 0]
    if config.generator.guidance != 1 and without:
        faults.append(
            f"generator.guidance must be 1 unless every prior has a label_dropout above 0, got "
            f"{config.generator.guidance} with none for {without}: guidance draws without the class too"
        )
    fits = {"vqvae": (config.vqvae.training, config.resources.tokenizer)}
    fits |= {f"priors.{level}": (prior.training, config.resources.prior) for level, prior in config.priors.items()}
    fits |= {name: (getattr(config, name).training, config.resources.classifier) for name in ("classifier", "judge")}
    for section, (training, resources) in fits.items():
        if training.batch_size % resources.workers:
            workers = f"{resources.workers} workers"
            faults.append(f"{section}.training.batch_size must divide among {workers}, got {training.batch_size}")
    if config.judge.program is not None:
        faults.append(
            f"judge.program must be null, got {config.judge.program!r}: measures need the features of a judge that is "
            "fitted here; give your own classifier as classifier.program"
        )
    if config.classifier.seed == config.judge.seed:
        faults.append(
            f"judge.seed must differ from classifier.seed, both are {config.judge.seed}: they must be two models"
        )
    # size >> stages is the side after that many halvings.
    if config.images.image_size >> config.classifier.stages < 1 or config.images.image_size >> config.judge.stages < 1:
        faults.append(f"classifier.stages and judge.stages must leave at least one pixel of image_size={size}")
    return faults


PipelineConfig.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]


def flatten(tree: Any, prefix: str = "") -> dict[str, object]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    if isinstance(tree, Mapping):
        return {key: value for name, node in tree.items() for key, value in flatten(node, f"{prefix}{name}.").items()}
    if isinstance(tree, list):
        return {
            key: value for index, node in enumerate(tree) for key, value in flatten(node, f"{prefix}{index}.").items()
        }
    return {prefix[:-1]: tree}


def config_digest(config: PipelineConfig) -> str:
    """Digest of all that changes a result: where things are stored and on what they run is left out."""
    return digest_of(result_settings(config))

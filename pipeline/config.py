"""PipelineConfig: the whole run as one typed, frozen tree, read from a preset or a YAML file, validated whole."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from components.artifacts import digest_of
from components.classifier.config import ClassifierConfig
from components.codes.config import CodesConfig
from components.config import Resources, require
from components.errors import ConfigError
from components.evaluation.config import EvaluationConfig
from components.generator.config import GeneratorConfig
from components.images.config import ImagesConfig
from components.priors.config import PriorConfig
from components.tokenizer.config import VQVAEConfig

PRESETS = Path(__file__).parent / "presets"
ConfigType = TypeVar("ConfigType")


@dataclass(frozen=True, kw_only=True)
class Gates:
    """What an artifact must reach to be counted as good. Thresholds change no result: they are in no fingerprint."""

    reconstruction_error: float
    """Largest mean squared error of held-out reconstructions, images in [-1, 1]."""
    codebook_usage: float = 0.5
    """Smallest share of a level's codebook that the training codes use."""
    nats_share: float = 0.97
    """Largest held-out nats per code of a prior, as a share of the codes' unigram entropy."""
    judge_accuracy: float = 0.0
    """Smallest share of samples at the default temperature that the judge reads as the class asked for."""
    kept_accuracy: float = 0.0
    """The same after rejection."""


@dataclass(frozen=True, kw_only=True)
class Orchestration:
    """How the DAG is run."""

    schedule: str | None = None
    """Cron line on which `python -m pipeline ui` starts a run; None: by hand only."""
    retries: int = 2
    """Times a failed step is tried again."""
    retry_delay: float = 5.0
    """Seconds before the first of them; doubled each time."""
    lease_wait: float = 600.0
    """Seconds to wait for another run that is at work on the same step."""
    autoscale_wait: float = 0.0
    """Seconds an autoscaling cluster gets to bring what a step lacks; 0 fails at once."""

    def __post_init__(self) -> None:
        if self.schedule is not None:
            from croniter import croniter

            require(
                croniter.is_valid(self.schedule),
                f"schedule must be a cron line like '0 3 * * *', got {self.schedule!r}",
            )
        for name in ("retries", "retry_delay", "lease_wait", "autoscale_wait"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """One deployment: everything that a run of the DAG depends on."""

    name: str
    """Names the MLflow experiment and the registered models `<name>-tokenizer` and `<name>-generator`."""
    seed: int = 0
    """Every random draw follows from it."""
    artifact_root: str = "runs/artifacts"
    """Where artifacts go: a local folder or s3://bucket/prefix."""
    state: str = "runs"
    """Local folder of the orchestrator's instance, of the default MLflow database and of pictures."""
    images: ImagesConfig
    vqvae: VQVAEConfig
    codes: CodesConfig = field(default_factory=CodesConfig)
    priors: Mapping[str, PriorConfig]
    """By level name; every level of the VQ-VAE has one."""
    classifier: ClassifierConfig
    """Rejects samples (section 3.3)."""
    judge: ClassifierConfig
    """Measures samples; takes no part in fitting or rejection."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    gates: Gates
    resources: Resources = field(default_factory=Resources)
    orchestration: Orchestration = field(default_factory=Orchestration)

    def __post_init__(self) -> None:
        faults = list(_cross_faults(self))
        require(not faults, "\n".join(faults))

    @property
    def level_names(self) -> tuple[str, ...]:
        """Levels, top first."""
        return tuple(level.name for level in self.vqvae.levels)

    def map_side(self, level: str) -> int:
        """Codes along a side of the level's map."""
        strides = {one.name: one.stride for one in self.vqvae.levels}
        return self.images.image_size // strides[level]


def _cross_faults(config: PipelineConfig) -> list[str]:
    """What single sections cannot see."""
    faults = []
    levels, size = config.vqvae.levels, config.images.image_size
    names = [level.name for level in levels]
    if not config.name.replace("-", "").replace("_", "").isalnum():
        faults.append(f"name must be made of letters, digits, '-' and '_', got {config.name!r}")
    if sorted(config.priors) != sorted(names):
        faults.append(f"priors must have one entry a level {names}, got {sorted(config.priors)}")
    for level in levels:
        if size % level.stride:
            stride = f"{level.stride} ('{level.name}')"
            faults.append(f"images.image_size must be a multiple of every level's stride, got {size} for {stride}")
    top = config.priors.get(names[0])
    if top is not None and top.conditioning_layers:
        faults.append(
            f"priors.{names[0]}.conditioning_layers must be 0: nothing is above it, got {top.conditioning_layers}"
        )
    fits = {"vqvae": (config.vqvae.training, config.resources.tokenizer)}
    fits |= {f"priors.{level}": (prior.training, config.resources.prior) for level, prior in config.priors.items()}
    fits |= {one: (getattr(config, one).training, config.resources.classifier) for one in ("classifier", "judge")}
    for place, (training, resources) in fits.items():
        if training.batch_size % resources.workers:
            workers = f"{resources.workers} workers"
            faults.append(f"{place}.training.batch_size must divide among {workers}, got {training.batch_size}")
    if config.judge.program is not None:
        faults.append(
            f"judge.program must be null, got {config.judge.program!r}: measures need the features of a judge that is "
            "fitted here; give your own classifier as classifier.program"
        )
    if config.classifier.seed == config.judge.seed:
        faults.append(
            f"judge.seed must differ from classifier.seed, both are {config.judge.seed}: the judge must be another"
        )
    if config.images.image_size >> config.classifier.stages < 1 or config.images.image_size >> config.judge.stages < 1:
        faults.append(f"classifier.stages and judge.stages must leave at least one pixel of image_size={size}")
    return faults


PipelineConfig.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]


def preset_names() -> list[str]:
    """Names of the presets that come with the pipeline."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(source: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read the preset or file `source`, apply `section.key=value` overrides, validate.

    A file may start from a preset or another file with `base: <name or path>` and give only what differs.
    Raises ConfigError with every fault.
    """
    tree = _read(source)
    apply_overrides(tree, overrides, source)
    return parse_config(tree, source)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str], source: str) -> None:
    """Put `section.key=value` into the tree, one after the other; raises ConfigError with every fault."""
    faults = [fault for override in overrides if (fault := _apply(tree, override))]
    if faults:
        raise ConfigError(source, faults)


def parse_config(tree: Mapping[str, Any], source: str) -> PipelineConfig:
    """Validate a tree of plain values; raises ConfigError with every fault."""
    return validate_config(PipelineConfig, tree, source)


def validate_config(kind: type[ConfigType], tree: Mapping[str, Any], source: str) -> ConfigType:
    """The config of type `kind` that a tree of plain values describes; raises ConfigError with every fault."""
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        faults = []
        for one in error.errors():
            place = ".".join(str(part) for part in one["loc"] if not str(part).startswith("function-"))
            for line in _plain(one).splitlines():
                faults.append(f"{place}: {line}" if place else line)
        raise ConfigError(source, faults) from None


def _plain(error: Any) -> str:
    if error["type"] == "missing":
        return "is required, got nothing"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"no such setting (got {error['input']!r}): see `python -m pipeline plan` for the ones there are"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _read(source: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = PRESETS / f"{source}.yaml" if source in preset_names() else Path(source)
    if not path.is_file():
        raise ConfigError(source, [f"must be a preset ({', '.join(preset_names())}) or a YAML file, found neither"])
    if str(path) in seen:
        raise ConfigError(source, [f"base must not lead back to itself: {' -> '.join([*seen, str(path)])}"])
    try:
        tree = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ConfigError(source, [f"must be YAML: {error}".replace("\n", " ")]) from None
    if not isinstance(tree, dict):
        raise ConfigError(source, ["must be a mapping of sections, got " + type(tree).__name__])
    if "base" not in tree:
        return tree
    base = str(tree.pop("base"))
    beside = path.parent / base
    return _merge(_read(str(beside) if beside.is_file() else base, (*seen, str(path))), tree)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply(tree: dict[str, Any], override: str) -> str | None:
    """Put one `a.b.c=value` into the tree; returns what is wrong with it, or None."""
    place, separator, text = override.partition("=")
    if not separator or not place.strip():
        return f"an override must read section.key=value, got {override!r}"
    *path, last = place.strip().split(".")
    node: Any = tree
    try:
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = _value(text)
        else:
            node[last] = _value(text)
    except (ValueError, IndexError, AttributeError, TypeError):
        return f"{place}: there is no such place in the config, got {override!r}"
    return None


def _value(text: str) -> Any:
    """`text` as YAML; what is none stays text, as `* * * * *` does: whether it fits is validation's to say."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def to_plain(config: Any) -> Any:
    """Plain values of a config or of a section: what goes into YAML, digests and MLflow."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {one.name: to_plain(getattr(config, one.name)) for one in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    return config


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
    tree = to_plain(config)
    for outside in ("artifact_root", "state", "resources", "orchestration", "gates"):
        tree.pop(outside)
    return digest_of(tree)

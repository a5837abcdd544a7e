"""The stored form of a model: config.json (what it is, how to build it) beside model.safetensors (its numbers).

    {"format": 1, "kind": "prior", "description": {...fields of PriorDescription...}}

Nothing stored here can run code: a model is built by the classes below and only its tensors are read from the file. A
classifier of the user's own is the exception: its program.pt2 is trusted as its config is.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from components.classifier.config import ClassifierConfig
from components.classifier.model import Classifier
from components.classifier.program import ProgramClassifier
from components.config import require
from components.generator.ancestral import Generator
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.model import Prior
from components.tokenizer.config import VQVAEConfig
from components.tokenizer.model import Tokenizer

MODEL_FORMAT = 1
CONFIG_FILE, WEIGHTS_FILE, PROGRAM_FILE = "config.json", "model.safetensors", "program.pt2"


@dataclass(frozen=True, kw_only=True)
class TokenizerDescription:
    """Everything needed to build a tokenizer and to feed it."""

    settings: VQVAEConfig
    channels: int
    """1 for grayscale, 3 for RGB."""
    image_size: int
    """Side in pixels of the images it was fitted to."""

    def build(self) -> Tokenizer:
        """The tokenizer, its weights not yet loaded."""
        return Tokenizer(self.settings, channels=self.channels)


@dataclass(frozen=True, kw_only=True)
class PriorDescription:
    """Everything needed to build one level's prior."""

    level: str
    """Name of the level whose codes it draws."""
    settings: PriorConfig
    shape: tuple[int, int]
    """Height and width of its code map."""
    codebook_size: int
    classes: int
    above: tuple[MapSpec, ...]
    """Maps of the levels above, top first."""

    def build(self) -> Prior:
        """The prior, its weights not yet loaded."""
        return Prior(
            self.settings,
            shape=self.shape,
            codebook_size=self.codebook_size,
            classes=self.classes,
            above=self.above,
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierDescription:
    """Everything needed to build a classifier and to name what it says."""

    settings: ClassifierConfig
    channels: int
    """1 for grayscale, 3 for RGB."""
    class_names: tuple[str, ...]
    """Names of the classes 0, 1, ..."""

    def build(self) -> Classifier:
        """The classifier, its weights not yet loaded."""
        return Classifier(self.settings, channels=self.channels, classes=len(self.class_names))


Description = TokenizerDescription | PriorDescription | ClassifierDescription
Described = TypeVar("Described", bound=Description)
Model = TypeVar("Model", bound=nn.Module)

_KINDS: dict[str, type] = {
    "tokenizer": TokenizerDescription,
    "prior": PriorDescription,
    "classifier": ClassifierDescription,
}


def pack(model: nn.Module, description: Description) -> dict[str, bytes]:
    """Files by name that `load_...` reads back; equal models give equal bytes."""
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    return {CONFIG_FILE: _config(description), WEIGHTS_FILE: save(tensors)}


def pack_program(data: bytes, description: ClassifierDescription) -> dict[str, bytes]:
    """Files by name that `load_rejector` reads back, of a classifier's exported program."""
    return {CONFIG_FILE: _config(description), PROGRAM_FILE: data}


def _config(description: Description) -> bytes:
    kind = next(kind for kind, described in _KINDS.items() if isinstance(description, described))
    config = {"format": MODEL_FORMAT, "kind": kind, "description": asdict(description)}
    return json.dumps(config, indent=1, sort_keys=True).encode()


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer stored in `folder`, in eval mode; raises ValueError when there is none or it is broken."""
    return _filled(describe_tokenizer(folder).build(), folder)


def load_prior(folder: Path) -> Prior:
    """The prior stored in `folder`, in eval mode; raises ValueError when there is none or it is broken."""
    return _filled(describe_prior(folder).build(), folder)


def load_classifier(folder: Path) -> Classifier:
    """The classifier stored in `folder`, in eval mode; raises ValueError when there is none or it is broken."""
    return _filled(describe_classifier(folder).build(), folder)


def load_rejector(folder: Path) -> Classifier | ProgramClassifier:
    """The classifier stored in `folder`, fitted here or the user's own; raises ValueError when there is none."""
    description = describe_classifier(folder)
    if description.settings.program is None:
        return load_classifier(folder)
    path = Path(folder) / PROGRAM_FILE
    require(path.is_file(), f"a stored classifier must have {PROGRAM_FILE}, but {path} is missing: store it again")
    return ProgramClassifier(path.read_bytes(), channels=description.channels, classes=len(description.class_names))


def load_generator(folders: Mapping[str, Path]) -> Generator:
    """The generator whose parts are stored in `folders`: 'tokenizer', 'classifier' and 'prior_<level>' a level."""
    needed = ["tokenizer", "classifier"]
    if "tokenizer" in folders:
        needed += [f"prior_{level.name}" for level in describe_tokenizer(folders["tokenizer"]).settings.levels]
    missing = sorted(set(needed) - set(folders))
    require(not missing, f"a generator needs the folders {needed}, got {sorted(folders)} without {missing}")
    priors = [load_prior(folders[name]) for name in needed[2:]]
    names = describe_classifier(folders["classifier"]).class_names
    return Generator(load_tokenizer(folders["tokenizer"]), priors, load_rejector(folders["classifier"]), names)


def describe_tokenizer(folder: Path) -> TokenizerDescription:
    """What the tokenizer in `folder` is, without reading its weights."""
    return _described(folder, "tokenizer", TokenizerDescription)


def describe_prior(folder: Path) -> PriorDescription:
    """What the prior in `folder` is, without reading its weights."""
    return _described(folder, "prior", PriorDescription)


def describe_classifier(folder: Path) -> ClassifierDescription:
    """What the classifier in `folder` is, without reading its weights."""
    return _described(folder, "classifier", ClassifierDescription)


def _described(folder: Path, kind: str, described: type[Described]) -> Described:
    path = Path(folder) / CONFIG_FILE
    require(
        path.is_file(), f"a stored {kind} must have {CONFIG_FILE}, but {path} is missing: is this a model's folder?"
    )
    try:
        config = json.loads(path.read_bytes())
        found, version, description = config["kind"], config["format"], config["description"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a model's description, but it cannot be read: {error!r}") from error
    require(
        version == MODEL_FORMAT,
        f"{path} must have format {MODEL_FORMAT}, got {version!r}: store it again with this version",
    )
    require(found == kind, f"{path} must describe a {kind}, got a {found}: give the folder of a {kind}")
    return _rebuilt(described, description, str(path))


def _rebuilt(wanted: Any, value: Any, where: str) -> Any:
    """The value of type `wanted` whose JSON is `value`: nested dataclasses, named tuples and tuples come back."""
    if is_dataclass(wanted) and isinstance(wanted, type):
        names = {field.name for field in fields(wanted)}
        given = set(value) if isinstance(value, dict) else set()
        require(given == names, f"{where} must have the fields {sorted(names)}, got {sorted(given)}: store it again")
        hints = get_type_hints(wanted)
        return wanted(**{name: _rebuilt(hints[name], value[name], f"{where}: {name}") for name in names})
    if isinstance(wanted, type) and issubclass(wanted, tuple) and hasattr(wanted, "_fields"):
        return wanted(*value)
    if get_origin(wanted) is tuple:
        item = get_args(wanted)[0]
        return tuple(_rebuilt(item, each, where) for each in value)
    plain = isinstance(value, bool | int | float | str | types.NoneType)
    require(plain, f"{where} must be a plain value, got {value!r}")
    return value


def _filled(model: Model, folder: Path) -> Model:
    path = Path(folder) / WEIGHTS_FILE
    require(path.is_file(), f"a stored model must have {WEIGHTS_FILE}, but {path} is missing: store the model again")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, but it cannot be read: {error}") from error
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = [
        f"{name} {wanted.get(name, 'unknown')} (got {found.get(name, 'nothing')})"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    require(
        not wrong,
        f"{path} must hold the tensors that {CONFIG_FILE} beside it describes, but {len(wrong)} differ, first "
        f"{', '.join(wrong[:3])}: do the two files belong together?",
    )
    model.load_state_dict(tensors)
    return model.eval()

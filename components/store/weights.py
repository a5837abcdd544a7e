"""The stored form of a model: config.json (what it is, how to build it) beside model.safetensors (its weights).

    {"format": 2, "kind": "prior", "description": {...fields of PriorDescription...}}

This file knows no model. Each kind has a description, a frozen dataclass in the `stored.py` of the model's folder, with
a field `architecture` (all that is needed to build the model) and what is needed to feed it. No training setting is
stored. Reading is tolerant in one direction only: a field that is missing takes its default (or, where models without
it were built otherwise, the value that its metadata hold under STORED_BEFORE), a field that this version does not know
is an error.

Nothing stored here can run code: a model is built by its own class, and only its tensors are read from the file.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from components.config import STORED_BEFORE, require

MODEL_FORMAT = 2
"""2: descriptions hold an architecture. 1: they held `settings`, all settings of the fit among them; still readable."""
CONFIG_FILE, WEIGHTS_FILE, PROGRAM_FILE = "config.json", "model.safetensors", "program.pt2"

DescriptionRecord = dict[str, Any]
"""A description as JSON holds it."""
Described = TypeVar("Described")
Model = TypeVar("Model", bound=nn.Module)


# --- writing ----------------------------------------------------------------------------------------------------------


def pack(kind: str, model: nn.Module, description: Any) -> dict[str, bytes]:
    """Files by name of a model of `kind`, described by a dataclass; equal models give equal bytes."""
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    return {CONFIG_FILE: pack_config(kind, description), WEIGHTS_FILE: save(tensors)}


def pack_config(kind: str, description: Any) -> bytes:
    """Content of config.json."""
    config = {"format": MODEL_FORMAT, "kind": kind, "description": asdict(description)}
    return json.dumps(config, indent=1, sort_keys=True).encode()


def narrowed(config: Any, base: type[Described]) -> Described:
    """The fields of the dataclass `base` alone, of a `config` that may be of a class derived from it.

    Settings join an architecture and a fit by inheritance; only the architecture is stored.
    """
    return base(**{field.name: getattr(config, field.name) for field in fields(base)})  # type: ignore[arg-type]


# --- reading ----------------------------------------------------------------------------------------------------------


def read_description(
    folder: Path,
    kind: str,
    described: type[Described],
    upgrade: Callable[[DescriptionRecord], DescriptionRecord],
) -> Described:
    """The description of type `described` in `folder`, without reading weights.

    `upgrade` turns the record of a description of format 1 into one of format 2. Raises ValueError when there is no
    model of `kind`, when a field without a default is missing, or when there is a field that `described` does not have.
    """
    path = Path(folder) / CONFIG_FILE
    require(
        path.is_file(), f"a stored {kind} must have {CONFIG_FILE}, but {path} is missing: is this a model's folder?"
    )
    try:
        config = json.loads(path.read_bytes())
        stored_kind, version, record = config["kind"], config["format"], config["description"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a model's description, but it cannot be read: {error!r}") from error
    require(
        version in (1, MODEL_FORMAT),
        f"{path} must have format {MODEL_FORMAT} (or 1, the former one), got {version!r}: was it stored by a newer "
        "version of this project?",
    )
    require(stored_kind == kind, f"{path} must describe a {kind}, got a {stored_kind}: give the folder of a {kind}")
    if version == 1:
        record = _upgraded(record, upgrade, str(path))
    description: Described = _rebuilt(described, record, str(path))
    return description


def upgrade_settings(
    record: DescriptionRecord, *, architecture: frozenset[str], dropped: frozenset[str]
) -> DescriptionRecord:
    """A description of format 1 with the fields `architecture` of its `settings` as its architecture.

    `dropped` are the other settings that format 1 had; any further one raises ValueError.
    """
    settings = record["settings"]
    unknown = sorted(set(settings) - architecture - dropped)
    require(not unknown, f"settings must be among those of format 1, got {unknown} too")
    upgraded = {name: value for name, value in record.items() if name != "settings"}
    return upgraded | {"architecture": {name: value for name, value in settings.items() if name in architecture}}


def load_weights(model: Model, folder: Path) -> Model:
    """`model` with the weights stored in `folder`, in eval mode; raises ValueError when they do not fit `model`."""
    path = Path(folder) / WEIGHTS_FILE
    require(path.is_file(), f"a stored model must have {WEIGHTS_FILE}, but {path} is missing: store the model again")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a safetensors file, but it cannot be read: {error}") from error
    needed = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    stored = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = [
        f"{name} {needed.get(name, 'unknown')} (got {stored.get(name, 'nothing')})"
        for name in sorted(needed.keys() | stored.keys())
        if needed.get(name) != stored.get(name)
    ]
    require(
        not wrong,
        f"{path} must hold the tensors that {CONFIG_FILE} beside it describes, but {len(wrong)} differ, first "
        f"{', '.join(wrong[:3])}: do the two files belong together?",
    )
    model.load_state_dict(tensors)
    return model.eval()


def _upgraded(
    record: DescriptionRecord, upgrade: Callable[[DescriptionRecord], DescriptionRecord], where: str
) -> DescriptionRecord:
    settings = isinstance(record, dict) and isinstance(record.get("settings"), dict)
    require(settings, f"{where} must have the field 'settings', as format 1 has it: store the model again")
    try:
        return upgrade(record)
    except ValueError as error:
        raise ValueError(f"{where}: {error}: correct it, or store the model again") from error


# --- from JSON to dataclasses -----------------------------------------------------------------------------------------


def _rebuilt(wanted: Any, value: Any, where: str) -> Any:
    """The value of type `wanted` whose JSON is `value`: nested dataclasses, named tuples and tuples come back.

    `where` names the value in errors: the file, then the path of fields.
    """
    if is_dataclass(wanted) and isinstance(wanted, type):
        return _rebuilt_dataclass(wanted, value, where)
    if isinstance(wanted, type) and issubclass(wanted, tuple) and hasattr(wanted, "_fields"):
        fits = isinstance(value, list) and len(value) == len(wanted._fields)
        require(fits, f"{where} must be {wanted._fields} as a list, got {value!r}: store the model again")
        return wanted(*value)
    if get_origin(wanted) is tuple:
        require(isinstance(value, list), f"{where} must be a list, got {value!r}: store the model again")
        item = get_args(wanted)[0]
        return tuple(_rebuilt(item, each, where) for each in value)
    if get_origin(wanted) in (Union, UnionType) and NoneType in get_args(wanted):
        (present,) = set(get_args(wanted)) - {NoneType}
        return None if value is None else _rebuilt(present, value, where)
    if get_origin(wanted) is Literal:
        allowed = get_args(wanted)
        require(value in allowed, f"{where} must be one of {list(allowed)}, got {value!r}: this version has no other")
        return value
    plain = isinstance(value, bool | int | float | str)
    require(plain, f"{where} must be a plain value, got {value!r}: store the model again")
    return value


def _rebuilt_dataclass(wanted: type, value: Any, where: str) -> Any:
    require(isinstance(value, dict), f"{where} must be an object, got {value!r}: store the model again")
    known = {field.name: field for field in fields(wanted)}
    unknown = sorted(set(value) - set(known))
    require(
        not unknown,
        f"{where} must have no fields but {sorted(known)}, got {unknown} too: was it stored by a newer version of this "
        "project?",
    )
    missing = [
        name
        for name, field in known.items()
        if name not in value and field.default is MISSING and field.default_factory is MISSING
    ]
    require(not missing, f"{where} must have the fields {missing}, got {sorted(value)}: store the model again")
    hints = get_type_hints(wanted)
    former = {name: field.metadata[STORED_BEFORE] for name, field in known.items() if STORED_BEFORE in field.metadata}
    given = {name: _rebuilt(hints[name], value[name], f"{where}: {name}") for name in value}
    return wanted(**former | given)

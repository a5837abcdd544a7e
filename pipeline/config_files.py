"""From a preset, a YAML file and overrides to a validated config; every fault is reported at once."""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from components.errors import ConfigError
from pipeline import config_text
from pipeline.config import PipelineConfig
from pipeline.config_text import TextError, names_of, read_document, read_override

PRESETS = Path(__file__).parent / "presets"
RENAMED = {
    "codes.rows_a_shard": "codes.rows_per_shard",
    "codes.rows_a_wave": "codes.rows_per_wave",
    "evaluation.samples_per_class": "evaluation.samples",
    "share": "resources",
}
"""Former names of settings, which files and command lines may still use; both names are in the same section."""
BY_SIZE = "by_image_size"
"""Part of a file that gives settings for several sizes of images: {64: {vqvae: ...}, 256: ...}."""
SIZE_SETTING = "images.image_size"
AUTO = "auto"
"""Value of resources.<step>.gpus in a file: GPUs if this machine has them."""
ConfigType = TypeVar("ConfigType")
Origins = dict[config_text.Path, str]
"""Where a setting was given last, for messages: `line 3 of mine.yaml`."""


@dataclass(frozen=True, kw_only=True)
class FileSettings(PipelineConfig):
    """Types of what a config file may hold: a config's settings, and the two below."""

    base: str
    by_image_size: Mapping[str, PipelineConfig]


@dataclass(frozen=True)
class _Layer:
    """One file's settings as plain values, and where each of them stands."""

    tree: dict[str, Any]
    origins: Origins


def preset_names() -> list[str]:
    """Names of the presets that come with the pipeline."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(source: str, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Read the preset or file `source`, apply `section.key=value` overrides, validate.

    A file may start from a preset or another file with `base: <name or path>` and give only what differs. In the
    section `by_image_size` it may give settings that follow images.image_size; files that start from it and overrides
    win over them. Raises ConfigError with every fault.
    """
    layers = _read_layers(source)
    size = _image_size([layer.tree for layer in layers], overrides)
    tree: dict[str, Any] = {}
    origins: Origins = {}
    for layer in layers:
        by_size = layer.tree.pop(BY_SIZE, {})
        listed = _listed_size(size, by_size, source)
        tree = _merge(_merge(tree, layer.tree), by_size[listed] if listed else {})
        prefix = (BY_SIZE, str(listed))
        origins |= layer.origins
        origins |= {path[2:]: origin for path, origin in layer.origins.items() if path[:2] == prefix}
    apply_overrides(tree, overrides, source, origins)
    _settle_gpus(tree)
    return validate_config(PipelineConfig, tree, source, origins)


def apply_overrides(
    tree: dict[str, Any], overrides: Sequence[str], source: str, origins: Origins | None = None
) -> None:
    """Put `section.key=value` into the tree, one after the other; raises ConfigError with every fault.

    `origins` loses what is overridden.
    """
    faults = [fault for override in overrides if (fault := _apply(tree, override, {} if origins is None else origins))]
    if faults:
        raise ConfigError(source, faults)


def parse_config(tree: Mapping[str, Any], source: str) -> PipelineConfig:
    """Validate a tree of plain values; raises ConfigError with every fault."""
    return validate_config(PipelineConfig, tree, source)


def validate_config(
    kind: type[ConfigType], tree: Mapping[str, Any], source: str, origins: Origins | None = None
) -> ConfigType:
    """The config of type `kind` that a tree of plain values describes; raises ConfigError with every fault."""
    try:
        return TypeAdapter(kind).validate_python(tree)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            # Pydantic puts names of its validators into the path; they name no setting.
            path = tuple(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
            for line in _fault_text(fault, kind, path).splitlines():
                where = _origin(kind, path, line, origins or {})
                faults.append(": ".join(filter(None, [".".join(path), line])) + where)
        raise ConfigError(source, faults) from None


def _origin(kind: Any, path: config_text.Path, fault: str, origins: Origins) -> str:
    """Where the setting that a fault names was given: the one that its text begins with, or the one at `path`."""
    first_word = re.match(r"[\w.]+", fault)
    below = tuple(first_word[0].split(".")) if first_word else ()
    named = (*path, *below) if below and below[0] in names_of(kind, path) else path
    return f" ({origins[named]})" if named and named in origins else ""


def _fault_text(error: Any, kind: Any, path: config_text.Path) -> str:
    if error["type"] == "missing":
        return "is required, got nothing"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        similar = difflib.get_close_matches(path[-1], names_of(kind, path[:-1]), n=1)
        cure = f"did you mean {similar[0]}?" if similar else "see `python -m pipeline plan` for all settings"
        return f"no such setting (got {error['input']!r}): {cure}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _read_layers(source: str, visited: tuple[str, ...] = ()) -> list[_Layer]:
    """The settings of the file `source` and of the files that it starts from, which come first."""
    path = PRESETS / f"{source}.yaml" if source in preset_names() else Path(source)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "neither"
        raise ConfigError(source, [f"must be a preset ({', '.join(preset_names())}) or a YAML file, found {found}"])
    if str(path) in visited:
        raise ConfigError(source, [f"base must not lead back to itself: {' -> '.join([*visited, str(path)])}"])
    try:
        tree, lines = read_document(path.read_bytes(), FileSettings)
    except OSError as error:
        raise ConfigError(source, [f"must be readable: {error.strerror}"]) from None
    except TextError as error:
        raise ConfigError(source, [str(error)]) from None
    if not isinstance(tree, dict):
        found = {type(None): "nothing", list: "a list", str: "text"}.get(type(tree), f"{tree!r}")
        raise ConfigError(source, [f"must be a mapping of sections, got {found}"])
    use_current_names(tree, source)
    layer = _Layer(tree, {setting: f"line {line} of {source}" for setting, line in lines.items()})
    if "base" not in tree:
        return [layer]
    base = str(tree.pop("base"))
    beside = path.parent / base  # a base's path is relative to the file that names it
    return [*_read_layers(str(beside) if beside.is_file() else base, (*visited, str(path))), layer]


# --- settings that follow the size of the images ----------------------------------------------------------------------


def _image_size(layers: Sequence[Mapping[str, Any]], overrides: Sequence[str]) -> Any:
    """images.image_size after all layers and overrides, unchecked; None where nothing sets it."""
    size = None
    for layer in layers:
        images = layer.get("images")
        size = images.get("image_size", size) if isinstance(images, Mapping) else size
    for override in overrides:
        setting, _, text = override.partition("=")
        if setting.strip() == SIZE_SETTING:
            with contextlib.suppress(TextError):  # reported when the override is applied
                size = read_override(text, PipelineConfig, tuple(SIZE_SETTING.split(".")))
    return size


def _listed_size(size: Any, by_size: Any, source: str) -> str | None:
    """The largest size in `by_size` that is not above `size`; None for smaller images than listed."""
    if not isinstance(by_size, Mapping) or not all(
        listed.isdecimal() and isinstance(settings, Mapping) for listed, settings in by_size.items()
    ):
        raise ConfigError(source, [f"{BY_SIZE} must map sizes in pixels to settings, got {by_size!r}"])
    fitting = [listed for listed in by_size if isinstance(size, int) and int(listed) <= size]
    return max(fitting, key=int, default=None)


# --- GPUs where there are any -----------------------------------------------------------------------------------------


def local_gpus() -> int:
    """GPUs of this machine that the installed torch can use."""
    try:
        import torch  # takes seconds, which a config that does not ask need not spend
    except (ImportError, OSError):  # OSError: a library that torch needs is missing
        return 0
    return torch.cuda.device_count()


def _settle_gpus(tree: dict[str, Any]) -> None:
    """Replace each `resources.<step>.gpus: auto` by a number, so that all that follows sees numbers.

    A fit gets one GPU per worker if this machine has as many, else none: its workers exchange gradients, for which each
    needs a GPU of its own. The encoders (`codes`) share what there is. On a cluster `auto` is 0.
    """
    resources = tree.get("resources")
    steps = resources.items() if isinstance(resources, Mapping) else ()
    asking = {name: step for name, step in steps if isinstance(step, dict) and step.get("gpus") == AUTO}
    if not asking:
        return
    on_cluster = bool(os.environ.get("RAY_ADDRESS"))
    if on_cluster:
        print(
            "note: resources.*.gpus: auto is 0 on a cluster, which may start GPUs later: give numbers", file=sys.stderr
        )
    gpus = 0 if on_cluster else local_gpus()
    for name, step in asking.items():
        workers = step.get("workers", 1)
        enough = isinstance(workers, int) and gpus >= workers >= 1
        shared = gpus / workers if name == "codes" and isinstance(workers, int) and workers >= 1 else 0.0
        step["gpus"] = 1.0 if enough else shared


# --- merging and overrides --------------------------------------------------------------------------------------------


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply(tree: dict[str, Any], override: str, origins: Origins) -> str | None:
    """Put one `a.b.c=value` into the tree; returns what is wrong with it, or None."""
    setting, separator, text = override.partition("=")
    if not separator or not setting.strip():
        return f"an override must read section.key=value, got {override!r}"
    *sections, last = path = tuple(_current_name(setting.strip()).split("."))
    node: Any = tree
    try:
        value = read_override(text, PipelineConfig, path)
        for part in sections:
            # A file may leave a section out: an override then starts it.
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    except TextError as error:
        return f"{setting.strip()}: {error}"
    except (ValueError, IndexError, AttributeError, TypeError):
        return f"{setting}: there is no such setting in the config, got {override!r}"
    for overridden in [each for each in origins if each[: len(path)] == path]:
        del origins[overridden]
    return None


# --- renamed settings -------------------------------------------------------------------------------------------------


def _current_name(setting: str) -> str:
    """The current name of the setting `section.key`; a former name is reported on stderr."""
    for former, current in RENAMED.items():
        if setting == former or setting.startswith(f"{former}."):
            print(f"note: the setting {former} is called {current} now", file=sys.stderr)
            return current + setting.removeprefix(former)
    return setting


def use_current_names(tree: dict[str, Any], source: str) -> None:
    """Rename former settings of a file in place; raises ConfigError when it has a setting under both names."""
    for former in RENAMED:
        *path, last = former.split(".")
        section: Any = tree
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            continue
        current = _current_name(former).split(".")[-1]
        if current in section:
            raise ConfigError(source, [f"{former} is called {current} now, and the file has both: remove the former"])
        section[current] = section.pop(last)

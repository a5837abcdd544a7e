"""From a preset, a YAML file and overrides to a validated config; every fault is reported at once."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from components.errors import ConfigError
from pipeline.config import PipelineConfig

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
    size = _image_size(layers, overrides)
    tree: dict[str, Any] = {}
    for layer in layers:
        by_size = layer.pop(BY_SIZE, {})
        tree = _merge(_merge(tree, layer), _settings_for(size, by_size, source))
    apply_overrides(tree, overrides, source)
    _settle_gpus(tree)
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
        for fault in error.errors():
            # Pydantic puts names of its validators into the path; they name no setting.
            setting = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
            for line in _fault_text(fault).splitlines():
                faults.append(f"{setting}: {line}" if setting else line)
        raise ConfigError(source, faults) from None


def _fault_text(error: Any) -> str:
    if error["type"] == "missing":
        return "is required, got nothing"
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"no such setting (got {error['input']!r}): see `python -m pipeline plan` for all settings"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _read_layers(source: str, visited: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The trees of the file `source` and of the files that it starts from, which come first."""
    path = PRESETS / f"{source}.yaml" if source in preset_names() else Path(source)
    if not path.is_file():
        raise ConfigError(source, [f"must be a preset ({', '.join(preset_names())}) or a YAML file, found neither"])
    if str(path) in visited:
        raise ConfigError(source, [f"base must not lead back to itself: {' -> '.join([*visited, str(path)])}"])
    try:
        tree = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ConfigError(source, [f"must be YAML: {error}".replace("\n", " ")]) from None
    if not isinstance(tree, dict):
        raise ConfigError(source, ["must be a mapping of sections, got " + type(tree).__name__])
    use_current_names(tree, source)
    if "base" not in tree:
        return [tree]
    base = str(tree.pop("base"))
    beside = path.parent / base  # a base's path is relative to the file that names it
    return [*_read_layers(str(beside) if beside.is_file() else base, (*visited, str(path))), tree]


# --- settings that follow the size of the images ----------------------------------------------------------------------


def _image_size(layers: Sequence[Mapping[str, Any]], overrides: Sequence[str]) -> Any:
    """images.image_size after all layers and overrides, unchecked; None where nothing sets it."""
    size = None
    for layer in layers:
        images = layer.get("images")
        size = images.get("image_size", size) if isinstance(images, Mapping) else size
    for override in overrides:
        setting, _, text = override.partition("=")
        size = _parse_value(text) if setting.strip() == SIZE_SETTING else size
    return size


def _settings_for(size: Any, by_size: Any, source: str) -> Mapping[str, Any]:
    """The settings for the largest listed size that is not above `size`; nothing for smaller images than listed."""
    if not isinstance(by_size, Mapping) or not all(
        isinstance(listed, int) and isinstance(settings, Mapping) for listed, settings in by_size.items()
    ):
        raise ConfigError(source, [f"{BY_SIZE} must map sizes in pixels to settings, got {by_size!r}"])
    fitting = [listed for listed in by_size if isinstance(size, int) and listed <= size]
    return by_size[max(fitting)] if fitting else {}


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


def _apply(tree: dict[str, Any], override: str) -> str | None:
    """Put one `a.b.c=value` into the tree; returns what is wrong with it, or None."""
    setting, separator, text = override.partition("=")
    if not separator or not setting.strip():
        return f"an override must read section.key=value, got {override!r}"
    *path, last = _current_name(setting.strip()).split(".")
    node: Any = tree
    try:
        for part in path:
            # A file may leave a section out: an override then starts it.
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = _parse_value(text)
        else:
            node[last] = _parse_value(text)
    except (ValueError, IndexError, AttributeError, TypeError):
        return f"{setting}: there is no such setting in the config, got {override!r}"
    return None


def _parse_value(text: str) -> Any:
    """`text` as YAML; text that is not YAML, such as `* * * * *`, stays as it is and is checked by validation."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


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

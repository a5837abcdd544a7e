"""From the text of a config file or of `--set` to plain values: what is written is what is meant.

Where a setting is text, its value is taken as it is written: 1.10, 007, no, 2024-01-01 and ' #2' stay what they are,
and only null (in a file also ~, or nothing) means None. Every other value is read by the core schema of YAML 1.2: null,
true, false, decimal numbers (1e3 too), or a [list] or {mapping} of such values. YAML 1.1 would read 12:30 as a number
to the base of 60 and 010 as eight; here the first is no number and the second is refused.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import yaml

Path = tuple[str, ...]
"""Names from the root of a config to a setting; items of lists by their number."""
MAX_VALUES = 100_000
"""Values of a file, those behind aliases counted as often as they are used: more are a mistake or an attack."""

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_KINDS = ("map", "seq", "null", "bool", "int", "float", "str", "merge")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_AMBIGUOUS = re.compile(r"[-+]?0[0-9_]+")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class TextError(ValueError):
    """The text cannot be read as it stands; the message says where and what to do."""


class _Loader(yaml.SafeLoader):
    """YAML's grammar, with the plain values of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "|".join(_BOOLEANS), list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|" + _NOT_FINITE.pattern, list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), list(_first))  # the first match counts


# --- what a setting takes ---------------------------------------------------------------------------------------------


def takes_text(root: Any, path: Path) -> bool:
    """Whether the setting at `path` below the config type `root` is text; False where there is no such setting."""
    kind = _type_at(root, path)
    if typing.get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in typing.get_args(kind))
    return kind is str


def _type_at(root: Any, path: Path) -> Any:
    kind = root
    for name in path:
        kind = _child_type(_without_none(kind), name)
    return _without_none(kind)


def _child_type(kind: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _field_types(kind).get(name, Any)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return arguments[1]
    return arguments[0] if origin in (tuple, list) else Any  # the items of our tuples are of one type


@cache
def _field_types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def names_of(root: Any, path: Path) -> list[str]:
    """Names of the settings in the section at `path` below the config type `root`; empty where it is no section."""
    kind = _type_at(root, path)
    return list(_field_types(kind)) if dataclasses.is_dataclass(kind) and isinstance(kind, type) else []


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    others = [each for each in typing.get_args(kind) if each is not type(None)]
    return others[0] if len(others) == 1 else kind


# --- a file -----------------------------------------------------------------------------------------------------------


def read_document(data: bytes, root: Any) -> tuple[Any, dict[Path, int]]:
    """The plain values of a YAML or JSON document whose settings are those of the type `root`, and the line of each.

    Raises TextError for what is no such document, or has a name twice.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise TextError(f"line {line}: must be UTF-8, got byte {data[error.start]:#04x}: save it as UTF-8") from None
    node = _compose(text)
    if node is None:
        return None, {}
    reader = _Reader(root)
    return reader.value(node, ()), reader.lines


def _compose(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        cure = ": indent by spaces, not by tabs" if "\\t" in str(error.problem) else ""
        raise TextError(f"line {mark.line + 1 if mark else 1}: must be YAML: {error.problem}{cure}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise TextError(f"line {line}: must be YAML, got the character #x{error.character:04x}: remove it") from None
    except RecursionError:
        raise TextError("must not be nested that deeply") from None


class _Reader:
    """Makes plain values of YAML's nodes, and keeps the line of each."""

    def __init__(self, root: Any) -> None:
        self._root, self._values, self._above = root, 0, set[int]()
        self.lines: dict[Path, int] = {}

    def value(self, node: yaml.Node, path: Path) -> Any:
        """The value of `node`, which stands at `path`."""
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._values += 1
        if self._values > MAX_VALUES:
            raise TextError(f"line {line}: aliases (*name) must not make more than {MAX_VALUES:,} values of a file")
        if node.tag.removeprefix(_TAG) not in _KINDS:
            raise TextError(f"line {line}: tags such as {node.tag} must not be used: write the value alone")
        if id(node) in self._above:
            raise TextError(f"line {line}: an alias (*name) must not stand inside what it names")
        self._above.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
            return _scalar(node.tag, str(node.value), takes_text(self._root, path), line)
        finally:
            self._above.remove(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own: dict[str, yaml.Node] = {}
        merged: dict[str, Any] = {}
        for _, item in (pair for pair in node.value if pair[0].tag == _MERGE):
            merged = self._merged(item, path) | merged
        for key, item in (pair for pair in node.value if pair[0].tag != _MERGE):
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise TextError(f"line {line}: a name must be text, got a list or a mapping")
            if key.value in own:
                name, first = ".".join((*path, key.value)), self.lines[*path, key.value]
                raise TextError(f"{name} must be given once, got it in lines {first} and {line}: join the two")
            own[key.value] = item
            self.lines[*path, key.value] = line
        return merged | {name: self.value(item, (*path, name)) for name, item in own.items()}

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """The settings that `<<: *name` or `<<: [*name, *other]` takes over; earlier ones win."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        values: dict[str, Any] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise TextError(f"line {part.start_mark.line + 1}: << must take over a mapping, got another value")
            values = self.value(part, path) | values
        return values


def _scalar(tag: str, text: str, is_text: bool, line: int) -> Any:
    kind = tag.removeprefix(_TAG)
    if kind == "str" or (is_text and kind != "null"):
        return text
    try:
        return _plain_value(text, kind)
    except ValueError as error:
        raise TextError(f"line {line}: {error}") from None


def _plain_value(text: str, kind: str) -> Any:
    """The value of `text`, which YAML 1.2 reads as `kind`; ValueError where it must not stand."""
    if _AMBIGUOUS.fullmatch(text):
        raise ValueError(f"a number must not begin with 0, which some read as octal, got {text}: write {int(text)}")
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"a number must be finite, got {text}")
    match kind:
        case "null":
            return None
        case "bool":
            return _BOOLEANS[text]
        case "int":
            return int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
        case "float":
            return float(text)
        case _:
            return text


# --- the command line -------------------------------------------------------------------------------------------------


def read_override(text: str, root: Any, path: Path) -> Any:
    """The value that `--set <path>=<text>` gives; raises TextError."""
    if not text.strip():
        raise TextError("must have a value after '=', got nothing: write null for none")
    if text == "null":
        return None
    if takes_text(root, path):
        return text
    written = text.strip()
    if written[0] not in "[{\"'":
        kind = _Loader("").resolve(yaml.ScalarNode, written, (True, False))
        try:
            return _plain_value(written, kind.removeprefix(_TAG))
        except ValueError as error:
            raise TextError(str(error)) from None
    node = _compose(written)
    if node is None or node.end_mark.index < len(written):
        raise TextError(f"must be one value, got more after it: {written!r}")
    return _Reader(root).value(node, path)

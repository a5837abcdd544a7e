"""The records passed along the arrows of the DAG: small, frozen, never data."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self, TypeVar


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a step reports about its result; each step has a subclass in its component's facts.py.

    Fields are numbers, strings, None, or mappings and tuples of these, so that JSON reads and writes them. A record may
    come from another version of the project: missing fields take their defaults, unknown ones are ignored.
    """

    def record(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:
        """The facts in `record`; raises ValueError when a field without a default is missing."""
        present = [each.name for each in dataclasses.fields(cls) if each.name in record]
        required = [each.name for each in dataclasses.fields(cls) if _is_required(each)]
        missing = [name for name in required if name not in present]
        if missing:
            raise ValueError(
                f"{cls.__name__} must have {missing}, got a record with {sorted(record)}: run the step again"
            )
        return cls(**{name: _frozen(record[name]) for name in present})

    def figures(self) -> dict[str, float]:
        """Every number by name, for MLflow and the orchestrator; a number in a mapping is `<field>_<key>`."""
        figures: dict[str, float] = {}
        for name, value in self.record().items():
            pairs = {f"{name}_{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
            figures |= {key: float(each) for key, each in pairs.items() if isinstance(each, int | float)}
        return figures

    def headline(self) -> str:
        """The most important figures as text, for the summary at the end of a run."""
        raise NotImplementedError(f"{type(self).__name__} must define headline()")


def _is_required(each: "dataclasses.Field[Any]") -> bool:
    return each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value  # JSON has no tuples


FactsType = TypeVar("FactsType", bound=Facts)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Names one finished result of a step; the data stay in the artifact store under `uri`."""

    kind: str
    """Step that made it: images, tokenizer, codes, prior_top, ..."""
    uri: str
    """Folder in the artifact store; its newest manifest lists what is in it."""
    digest: str
    """SHA-256 of the content: equal digests mean equal content."""
    fingerprint: str
    """Digest of what the step was asked to do: settings, seed, inputs and component version."""
    run_id: str
    """MLflow run that made it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Record of the step's Facts."""

    def read(self, facts_type: type[FactsType]) -> FactsType:
        """Its facts, typed."""
        return facts_type.read(self.facts)

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back equal."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Artifact":
        """Read what `to_json` wrote; raises TypeError for other JSON."""
        return cls(**json.loads(text))


def digest_of(value: object) -> str:
    """SHA-256 hex digest of `value` as canonical JSON (sorted keys, no spaces)."""
    # NaN has no canonical form in JSON, hence allow_nan=False.
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

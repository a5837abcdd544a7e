"""The records passed along the arrows of the DAG: small, frozen, never data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

Fact = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Names one finished result of a step; the data stay in the artifact store under `uri`."""

    kind: str
    """Step that made it: images, tokenizer, codes, prior_top, ..."""
    uri: str
    """Folder in the artifact store; its manifest.json lists what is in it."""
    digest: str
    """SHA-256 of the content: equal digests mean equal content."""
    fingerprint: str
    """What the step was asked to do: digest of settings, inputs and component version."""
    run_id: str
    """MLflow run that made it."""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """A few figures that the next step or a reader needs: counts, held-out loss."""

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back equal."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Artifact":
        """Read what `to_json` wrote; raises TypeError for other JSON."""
        return cls(**json.loads(text))


def digest_of(value: object) -> str:
    """SHA-256 hex digest of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

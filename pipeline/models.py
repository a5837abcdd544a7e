"""Finding a model for a verb: in the registry, or in the newest run of a config."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.artifacts import Artifact
from components.errors import MissingArtifact, UsageError
from components.store.commits import local_copy
from components.tracking.runs import Tracker
from components.tracking.server import has_been_used, tracking_uri, without_password
from pipeline.commands import nothing_has_run
from pipeline.config_files import load_config, preset_names
from pipeline.session import Session, look_up_memo

ModelKind = Literal["tokenizer", "generator"]


@dataclass(frozen=True)
class FoundModel:
    """A model on this machine's disk."""

    title: str
    """Name in messages."""
    parts: dict[str, Path]
    """Folders by part: 'tokenizer', and for a generator 'classifier' and 'prior_<level>' too."""
    artifact: Artifact
    """Artifact of the step that made it."""

    @property
    def registered_uri(self) -> str | None:
        """models:/<name>/<version>; None when it was found by a config."""
        return self.title if self.title.startswith("models:/") else None


@contextlib.contextmanager
def find_model(source: str, overrides: Sequence[str], state: str, kind: ModelKind) -> Iterator[FoundModel]:
    """The model that `source` names: models:/<name>/<version>, models:/<name>@<alias>, a registered name, or a config.

    Downloaded files exist until the body ends. Raises UsageError, MissingArtifact or UnknownModel when there is none.
    """
    if is_config(source):
        yield _newest_of_config(source, overrides, kind)
        return
    if overrides:
        raise UsageError(
            "--set overrides settings of a config: name a preset or a YAML file instead of a registered model"
        )
    tracker = open_registry(state, source)
    model = tracker.registry.find(source)
    artifact = tracker.made_by(model.run_id)
    if artifact.kind != kind:
        raise UsageError(f"{model.uri} is a {artifact.kind}, a {kind} is needed")
    with tempfile.TemporaryDirectory() as folder:
        yield FoundModel(model.uri, tracker.registry.model_parts(model, Path(folder)), artifact)


def _newest_of_config(source: str, overrides: Sequence[str], kind: ModelKind) -> FoundModel:
    config = load_config(source, overrides)
    memo = look_up_memo(config)
    if memo is None:
        raise MissingArtifact(nothing_has_run(source, overrides))
    session = Session(config, memo=memo)
    artifact = session.artifact(kind)
    folder = local_copy(artifact.uri)
    inputs = session.steps[kind].inputs
    parts = {"tokenizer": folder} if kind == "tokenizer" else {part: folder / part for part in inputs}
    return FoundModel(f"{kind} {artifact.digest[:12]} of {source}", parts, artifact)


def is_config(source: str) -> bool:
    """Whether `source` names a config: a preset or a YAML file."""
    return source in preset_names() or source.endswith((".yaml", ".yml"))


def open_registry(state: str, source: str) -> Tracker:
    """MLflow, to read from its registry; creates nothing. Raises UsageError when nothing has run yet."""
    uri = tracking_uri(state)
    if not has_been_used(uri):
        raise UsageError(
            f"{source!r} is neither a preset nor a YAML file, and no model is registered yet at "
            f"{without_password(uri)}: correct the name, run the pipeline first, or name its state by --state"
        )
    return Tracker(uri=uri, name="registry", state=state)

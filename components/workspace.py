"""What the pipeline gives a step to work in: where to write, whom to tell. Knows neither Ray nor MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from components.artifacts import Fact
from components.progress import Progress
from components.store.lease import Lease


class Journal(Protocol):
    """Where a step's figures and pictures go (an MLflow run, in components/tracking.py)."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Figures at an update; telling the same again after a resume changes nothing."""

    def picture(self, name: str, png: bytes, step: int | None = None) -> None:
        """A PNG; with `step`, one of a series that shows how it changes."""

    def document(self, name: str, text: str) -> None:
        """A text file: a report page, a table."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One step at work."""

    name: str
    """The step: tokenizer, codes, prior_top, ..."""
    fingerprint: str
    uri: str
    """Folder of the artifact to make."""
    seed: int
    lease: Lease
    journal: Journal
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What a step leaves behind once its artifact is committed."""

    digest: str
    """Of the committed content."""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """Figures that go with the artifact's record: gates and later steps read them."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNGs by name, shown in the orchestrator's UI, MLflow and the summary."""

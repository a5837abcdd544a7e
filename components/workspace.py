"""What a step works in: where it writes, reports and computes. Imports neither Ray nor MLflow."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from components.artifacts import Artifact, Facts
from components.config import StepResources
from components.progress import Progress
from components.store import commits, objects
from components.store.lease import Lease


class Journal(Protocol):
    """Where a step's figures and pictures go (an MLflow run, in components/tracking/runs.py)."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log figures of an update; logging them again after a resume changes nothing."""

    def picture(self, name: str, png: bytes, step: int | None = None) -> None:
        """Log a PNG; with `step`, as one of a series of the same name."""

    def document(self, name: str, text: str) -> None:
        """Log a text file, such as a report page or a table."""


class SilentJournal:
    """A journal that discards everything, for work outside a pipeline run."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Does nothing."""

    def picture(self, name: str, png: bytes, step: int | None = None) -> None:
        """Does nothing."""

    def document(self, name: str, text: str) -> None:
        """Does nothing."""


class ModelLookup(Protocol):
    """What a step may ask the model registry and the tracking server."""

    def registered_uri(self, artifact: Artifact) -> str | None:
        """models:/<name>/<version> of the registered model made from `artifact`; None when it is not registered."""

    def read_program(self, uri: str) -> bytes:
        """Content of the one exported program (.pt2) in the registered model models:/<name>/<version>."""

    def run_link(self, run_id: str) -> str:
        """Address of an MLflow run's page; empty when there is no server."""


class NoModels:
    """A lookup for work outside a pipeline run: nothing is registered."""

    def registered_uri(self, artifact: Artifact) -> str | None:
        """Always None."""
        return None

    def read_program(self, uri: str) -> bytes:
        """Always raises ValueError."""
        raise ValueError(f"there is no model registry to read {uri} from: give the path of a .pt2 file")

    def run_link(self, run_id: str) -> str:
        """Always empty."""
        return ""


class ComputeCluster(Protocol):
    """What steps use of the Ray cluster (components/cluster/step.py)."""

    local: bool
    """Whether it ends with its driver."""
    mailbox: Any
    """Actor that carries messages from workers to the driver."""

    def reserve(self, what: str, resources: StepResources) -> AbstractContextManager[None]:
        """Hold resources while the body runs; raises TooFewResources when the cluster is smaller."""


def _in_this_process() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Everything that one step works with, besides its config and inputs."""

    name: str
    """The step: tokenizer, codes, prior_top, ..."""
    fingerprint: str
    uri: str
    """Folder of the artifact to make."""
    seed: int
    lease: Lease
    base: int | None = None
    """Number of the newest commit in `uri` when the lease was taken: only the next one may be added to it. None: the
    one there is when the work is committed, for work without competitors."""
    journal: Journal = field(default_factory=SilentJournal)
    models: ModelLookup = field(default_factory=NoModels)
    progress: Progress = field(default_factory=Progress)
    connect: Callable[[], ComputeCluster | None] = _in_this_process
    """Joins or starts the cluster; returns None when the step must work in this process."""

    @property
    def cluster(self) -> ComputeCluster | None:
        """The cluster to work on, joined at the first call; None: work in this process."""
        return self.connect()

    @property
    def attempt_folder(self) -> str:
        """Where the artifact's files are written: no other attempt writes there."""
        return objects.join(self.uri, self.lease.attempt)

    @property
    def work_folder(self) -> str:
        """Where this attempt keeps unfinished work."""
        return objects.join(self.uri, commits.WORK_FOLDER, self.lease.attempt)

    def save(self, contents: Mapping[str, bytes], facts: Facts) -> str:
        """Write and commit the artifact's files (name -> bytes); returns the digest.

        Raises LeaseLost or CommitConflict when another run took over.
        """
        self.lease.check()
        attempt = self.lease.attempt
        return commits.save_artifact(self.uri, contents, facts.record(), attempt=attempt, base=self.base)


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """Result of a step whose artifact is committed."""

    digest: str
    """SHA-256 of the committed content."""
    facts: Facts
    """Figures that go with the artifact's record: gates and later steps read them."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNGs by name, shown in the orchestrator's UI, MLflow and the summary."""
    documents: Mapping[str, str] = field(default_factory=dict)
    """Text files by name, such as report.html: stored beside the artifact and in MLflow."""

"""One node of the DAG: its inputs, its settings and its work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact, Facts, digest_of
from components.config import StepResources
from components.workspace import StepOutput, Workspace
from pipeline.gates import Gate, Verdict

if TYPE_CHECKING:
    from components.tracking.registry import ModelPackage

Inputs = Mapping[str, Artifact]
StepWork = Callable[[Inputs, Workspace], StepOutput]
"""A function of exactly the artifacts of the declared inputs, and of the workspace."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One node of the DAG."""

    name: str
    summary: str
    """What it computes, by the lines of the paper's algorithms."""
    inputs: tuple[str, ...] = ()
    """Steps whose artifacts it reads."""
    settings: Mapping[str, Any]
    """The settings that change its result, as plain values."""
    version: int
    """Version of its component: raised whenever the same settings and inputs would give another result."""
    facts: type[Facts]
    """Type of the facts that it reports."""
    work: StepWork
    resources: StepResources | None = None
    """What it asks the cluster for; None: it works in the driver."""
    group: str = ""
    """Neighbouring steps of one group run at the same time; empty: the step runs alone."""
    gates: tuple[Gate, ...] = ()
    observe: Callable[[], Mapping[str, Any]] | None = None
    """Reads what else the result depends on, such as the list of image files; in the fingerprint like a setting."""
    package: "Callable[[Artifact], ModelPackage] | None" = None
    """Packs its artifact as a model for the registry; None: it is not registered."""

    def fingerprint(self, made_from: Inputs, seed: int, observed: Mapping[str, Any] | None = None) -> str:
        """Digest of everything that determines the result."""
        return digest_of(
            {
                "step": self.name,
                "version": self.version,
                "seed": seed,
                "settings": {**self.settings, **(observed or {})},
                "inputs": {name: made_from[name].digest for name in self.inputs},
            }
        )

    @property
    def code_version(self) -> str:
        """What the orchestrator shows as this asset's code version: settings and component version."""
        return digest_of({"version": self.version, "settings": self.settings})[:12]

    def judge(self, artifact: Artifact) -> list[Verdict]:
        """The verdict on its artifact of every gate that has a figure to judge."""
        if not self.gates:
            return []
        facts = artifact.read(self.facts)
        verdicts = [gate.judge(facts) for gate in self.gates]
        return [verdict for verdict in verdicts if verdict is not None]

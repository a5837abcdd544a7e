"""Get or run: the one place that decides whether a step's work is already done.

An artifact counts as done when a finished MLflow run carries the step's fingerprint and the artifact's files are all
there with the sizes that their manifest lists. Otherwise the step runs, in the unfinished run of the same fingerprint
where there is one, under a lease that keeps two drivers apart. Gates are judged every time from the stored facts.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from components.artifacts import Artifact
from components.config import result_settings
from components.errors import LeaseHeld
from components.progress import Progress, format_duration
from components.store import commits, leftovers, objects
from components.store.lease import acquire_lease, keep_alive, lease_folder
from components.tracking.runs import RunJournal, Tracker
from components.workspace import ComputeCluster, StepOutput, Workspace
from pipeline.config import PipelineConfig, config_digest, flatten
from pipeline.dag import dag_of
from pipeline.gates import Verdict, summarise_verdicts
from pipeline.step import Inputs, Step

FOLDER_NAME_LENGTH = 16
"""Characters of a fingerprint that name folders."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """A step's artifact and the gates' verdicts on it."""

    artifact: Artifact
    made: bool
    """Whether this call did the work; False when it was done before."""
    verdicts: list[Verdict]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNGs by name."""
    documents: Mapping[str, bytes] = field(default_factory=dict)
    """Text files by name."""

    @property
    def good(self) -> bool:
        """Whether every gate passed."""
        return all(verdict.passed for verdict in self.verdicts)


class Memo:
    """Finds finished artifacts and runs the other steps. One per pipeline run; several threads may call its methods."""

    def __init__(
        self,
        config: PipelineConfig,
        tracker: Tracker,
        progress: Progress,
        connect: Callable[[], ComputeCluster | None] = lambda: None,
    ) -> None:
        """`connect` joins the cluster when a step asks for it."""
        self.config, self.tracker, self.progress = config, tracker, progress
        self.steps = dag_of(config)
        self.root = objects.absolute(config.artifact_root)
        self.results: dict[str, StepResult] = {}
        self._connect = connect
        self._models = RegistryLookup(config.name, tracker)
        self._observed: dict[str, Mapping[str, Any]] = {}
        self._pipeline_run: str | None = None
        self._lock = threading.Lock()

    def pipeline_run(self) -> str:
        """MLflow run of this pipeline run, made when the first step has work to do."""
        with self._lock:
            if self._pipeline_run is None:
                settings = flatten(result_settings(self.config))
                self._pipeline_run = self.tracker.pipeline_run(config_digest(self.config), settings)
            return self._pipeline_run

    def close(self, succeeded: bool) -> None:
        """End the pipeline's MLflow run, if there is one, and leave MLflow."""
        if self._pipeline_run is not None:
            self.tracker.close_pipeline_run(self._pipeline_run, succeeded)
        self.tracker.close()

    def fingerprint(self, step: Step, made_from: Inputs) -> str:
        """Digest of what `step` is asked to do; its `observe` is called once per run."""
        if step.observe is not None and step.name not in self._observed:
            self._observed[step.name] = step.observe()
        return step.fingerprint(made_from, self.config.seed, self._observed.get(step.name))

    def artifact_folder(self, step: Step, fingerprint: str) -> str:
        """Where the artifact that `step` makes for a fingerprint goes."""
        return objects.join(self.root, step.name, fingerprint[:FOLDER_NAME_LENGTH])

    def lease_folder(self, step: Step, fingerprint: str) -> str:
        """Where the lease on a step's artifact is kept."""
        return lease_folder(self.artifact_folder(step, fingerprint))

    def find(self, step: Step, made_from: Inputs) -> tuple[Artifact | None, list[str]]:
        """The step's artifact if it was ever committed, and its faults; the step is done if there are none."""
        artifact = self.tracker.committed(self.fingerprint(step, made_from))
        if artifact is None:
            return None, []
        artifact = self._at_its_place(step, artifact)
        return artifact, commits.artifact_faults(artifact.uri, artifact.digest)

    def _at_its_place(self, step: Step, artifact: Artifact) -> Artifact:
        """The artifact in its folder below artifact_root if that holds one: the project may have been moved or copied.

        Elsewhere (artifact_root was changed) it is used where it was made.
        """
        folder = self.artifact_folder(step, artifact.fingerprint)
        if artifact.uri == folder:
            return artifact
        try:
            commits.read_manifest(folder)
        except FileNotFoundError:
            return artifact
        return replace(artifact, uri=folder)

    def get_or_run(self, step: Step, made_from: Inputs) -> StepResult:
        """The result of `step`: a finished one, or a new one, made by its work and committed.

        Raises LeaseHeld when another run works on the same step for longer than orchestration.lease_wait.
        """
        inputs = {name: made_from[name] for name in step.inputs}
        result = self._finished(step, inputs) or self._run_under_lease(step, inputs)
        self.results[step.name] = result
        self._record_verdicts(result)
        return result

    def _finished(self, step: Step, inputs: Inputs) -> StepResult | None:
        artifact, faults = self.find(step, inputs)
        if artifact is None:
            return None
        if faults:
            more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
            self.progress.say(f"{step.name}: {faults[0]}{more}; making it again")
            return None
        self.progress.say(f"{step.name}: done before (artifact {artifact.digest[:12]})")
        _remove_leftovers(artifact)
        return StepResult(
            artifact=artifact,
            made=False,
            verdicts=step.judge(artifact),
            pictures=_read_folder(artifact, commits.PICTURES_FOLDER, ".png"),
            documents=_read_folder(artifact, commits.DOCUMENTS_FOLDER),
        )

    def _run_under_lease(self, step: Step, inputs: Inputs) -> StepResult:
        fingerprint = self.fingerprint(step, inputs)
        folder = self.artifact_folder(step, fingerprint)
        lease = acquire_lease(
            self.lease_folder(step, fingerprint),
            wait_seconds=self.config.orchestration.lease_wait,
            report=lambda line: self.progress.say(f"{step.name}: {line}"),
            ends_with_driver=not os.environ.get("RAY_ADDRESS"),  # a local Ray ends with its driver
        )
        with keep_alive(lease, on_lost=lambda: self.tracker.abandon(fingerprint)):
            # The former holder of the lease may have finished the step meanwhile.
            base = commits.head_number(folder)
            result = self._finished(step, inputs)
            if result is not None:
                return result
            journal = self.tracker.run_journal(step.name, fingerprint, self.pipeline_run(), lease.check)
            workspace = Workspace(
                name=step.name,
                fingerprint=fingerprint,
                uri=folder,
                seed=self.config.seed,
                lease=lease,
                base=base,
                journal=journal,
                models=self._models,
                progress=self.progress,
                connect=self._connect,
            )
            return self._run(step, inputs, workspace, journal)

    def _run(self, step: Step, inputs: Inputs, workspace: Workspace, journal: RunJournal) -> StepResult:
        started = time.monotonic()
        self.progress.say(f"{step.name}: at work")
        journal.parameters(flatten(step.settings) | {"seed": self.config.seed})
        journal.inputs(list(inputs.values()))
        try:
            output = step.work(inputs, workspace)
            workspace.lease.check()  # if another run took over, its artifact is the one to record
        except BaseException as error:
            with contextlib.suppress(Exception):  # report the first error
                journal.fail(f"{type(error).__name__}: {error}")  # nothing, where another run has taken over
            raise
        artifact = Artifact(
            kind=step.name,
            uri=workspace.uri,
            digest=output.digest,
            fingerprint=workspace.fingerprint,
            run_id=journal.run_id,
            facts=output.facts.record(),
        )
        result = StepResult(
            artifact=artifact,
            made=True,
            verdicts=step.judge(artifact),
            pictures=output.pictures,
            documents={name: text.encode() for name, text in output.documents.items()},
        )
        journal.metrics(0, output.facts.figures())
        _keep_output(output, workspace.uri, journal)
        self.tracker.record_gates(journal.run_id, summarise_verdicts(result.verdicts))
        journal.finish(artifact)  # last of the records: from now on the step counts as done
        leftovers.clear_work(workspace.uri, workspace.lease.attempt)
        leftovers.sweep(workspace.uri, workspace.lease.attempt)
        duration = format_duration(time.monotonic() - started)
        self.progress.say(f"{step.name}: finished in {duration} (artifact {artifact.digest[:12]})")
        return result

    def _record_verdicts(self, result: StepResult) -> None:
        """Store changed verdicts in the MLflow run, and report failed gates."""
        verdict = summarise_verdicts(result.verdicts)
        if not result.made and result.verdicts and self.tracker.gates(result.artifact.run_id) != verdict:
            self.tracker.record_gates(result.artifact.run_id, verdict)
        if not result.good:
            when = "just now" if result.made else "in an earlier run, with the same settings"
            self.progress.say(f"{result.artifact.kind}: its gates failed ({when}); nothing is built on it. {verdict}")


class RegistryLookup:
    """The ModelLookup of the pipeline called `name`, through MLflow."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker

    def registered_uri(self, artifact: Artifact) -> str | None:
        """models:/<name>-<kind>/<version>, or None."""
        version = self._tracker.registry.version_of(f"{self._name}-{artifact.kind}", artifact.digest)
        return version.uri if version else None

    def read_program(self, uri: str) -> bytes:
        """Content of the model's only .pt2 file."""
        return self._tracker.server.patiently(lambda: self._tracker.registry.model_program(uri))

    def run_link(self, run_id: str) -> str:
        """The run's page in MLflow's UI."""
        return self._tracker.run_link(run_id)


def _keep_output(output: StepOutput, folder: str, journal: RunJournal) -> None:
    """Write pictures and documents beside the artifact and into its MLflow run."""
    for name, png in output.pictures.items():
        journal.picture(name, png)
        objects.write_bytes(objects.join(folder, commits.PICTURES_FOLDER, f"{name}.png"), png)
    for name, text in output.documents.items():
        journal.document(name, text)
        objects.write_bytes(objects.join(folder, commits.DOCUMENTS_FOLDER, name), text.encode())


def _remove_leftovers(artifact: Artifact) -> None:
    """Remove the checkpoints of a run that was killed just after it had recorded the artifact, if nobody is at work."""
    if not objects.object_sizes(objects.join(artifact.uri, commits.WORK_FOLDER)):
        return
    with contextlib.suppress(LeaseHeld):
        lease = acquire_lease(lease_folder(artifact.uri), wait_seconds=0, report=lambda line: None)
        with keep_alive(lease):
            leftovers.clear_work(artifact.uri, lease.attempt)
            leftovers.sweep(artifact.uri, lease.attempt)


def _read_folder(artifact: Artifact, name: str, suffix: str = "") -> dict[str, bytes]:
    folder = objects.join(artifact.uri, name)
    return {
        path.removesuffix(suffix): objects.read_bytes(objects.join(folder, path))
        for path in objects.object_sizes(folder)
    }

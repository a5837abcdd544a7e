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

from components.artifacts import Artifact
from components.progress import Progress, format_duration
from components.store import commits, objects
from components.store.lease import acquire_lease, keep_alive
from components.tracking.runs import RunJournal, Tracker
from components.workspace import StepOutput, Workspace
from pipeline.config import PipelineConfig, config_digest, flatten, to_plain
from pipeline.dag import Step, steps_of
from pipeline.gates import Verdict, summarise_verdicts, verdicts

PICTURES_FOLDER = "pictures"
"""Subfolder of an artifact with what a person looks at; no part of its content."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step has to show."""

    artifact: Artifact
    made: bool
    """Whether this call did the work; False: it was done before."""
    verdicts: list[Verdict]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNGs by name."""

    @property
    def good(self) -> bool:
        """Whether every gate passed."""
        return all(verdict.passed for verdict in self.verdicts)


class Memo:
    """What is done, and doing what is not. One for a pipeline run; its methods may be called from several threads."""

    def __init__(self, config: PipelineConfig, tracker: Tracker, progress: Progress) -> None:
        self.config, self.tracker, self.progress = config, tracker, progress
        self.steps = steps_of(config)
        self.root = objects.absolute(config.artifact_root)
        self.results: dict[str, StepResult] = {}
        self._source: str | None = None
        self._parent: str | None = None
        self._lock = threading.Lock()

    def parent(self) -> str:
        """MLflow run of this pipeline run, made when the first step has work to do."""
        with self._lock:
            if self._parent is None:
                self._parent = self.tracker.parent(config_digest(self.config), flatten(to_plain(self.config)))
            return self._parent

    def close(self, succeeded: bool) -> None:
        """End the pipeline's MLflow run, if there is one."""
        if self._parent is not None:
            self.tracker.close_parent(self._parent, succeeded)

    def fingerprint(self, step: Step, made_from: dict[str, Artifact]) -> str:
        """What `step` is asked to do; a snapshot is asked for what the folder holds at the first look of this run."""
        if step.name == "images" and self.config.images.source != "digits":
            if self._source is None:
                from components.images.sources import list_images

                self._source = list_images(self.config.images, "").digest()
            step = replace(step, settings={**step.settings, "listing": self._source})
        return step.fingerprint({name: made_from[name] for name in step.inputs}, self.config.seed)

    def find(self, step: Step, made_from: dict[str, Artifact]) -> tuple[Artifact | None, list[str]]:
        """The step's artifact if it was ever committed, and what is wrong with it now; (artifact, []) is done."""
        artifact = self.tracker.committed(self.fingerprint(step, made_from))
        return (artifact, commits.artifact_faults(artifact.uri, artifact.digest)) if artifact else (None, [])

    def get_or_run(
        self, name: str, made_from: dict[str, Artifact], work: Callable[[Workspace], StepOutput]
    ) -> StepResult:
        """The result of step `name`: found, or made by `work` and committed.

        Raises LeaseHeld when another run keeps at the same step beyond orchestration.lease_wait.
        """
        step = self.steps[name]
        inputs = {key: made_from[key] for key in step.inputs}
        result = self._found(step, inputs)
        if result is None:
            fingerprint = self.fingerprint(step, inputs)
            folder = objects.join(self.root, "leases", fingerprint[:16])
            lease = acquire_lease(
                folder,
                wait=self.config.orchestration.lease_wait,
                tell=lambda line: self.progress.say(f"{name}: {line}"),
                alone=not os.environ.get("RAY_ADDRESS"),  # a local Ray ends with its driver
            )
            with keep_alive(lease):
                # Whoever held the lease before may have finished the step meanwhile.
                result = self._found(step, inputs)
                if result is None:
                    journal = self.tracker.journal(name, fingerprint, self.parent())
                    uri = objects.join(self.root, name, fingerprint[:16])
                    space = Workspace(
                        name=name,
                        fingerprint=fingerprint,
                        uri=uri,
                        seed=self.config.seed,
                        lease=lease,
                        journal=journal,
                        progress=self.progress,
                    )
                    result = self._run(step, inputs, space, journal, work)
        self.results[name] = result
        self._tell_gates(result)
        return result

    def _found(self, step: Step, inputs: dict[str, Artifact]) -> StepResult | None:
        artifact, faults = self.find(step, inputs)
        if artifact is None:
            return None
        if faults:
            more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
            self.progress.say(f"{step.name}: {faults[0]}{more}; making it again")
            return None
        self.progress.say(f"{step.name}: done before (artifact {artifact.digest[:12]})")
        return StepResult(
            artifact=artifact,
            made=False,
            verdicts=verdicts(step.name, artifact.facts, self.config),
            pictures=_pictures(artifact),
        )

    def _run(
        self,
        step: Step,
        inputs: dict[str, Artifact],
        space: Workspace,
        journal: RunJournal,
        work: Callable[[Workspace], StepOutput],
    ) -> StepResult:
        started = time.monotonic()
        self.progress.say(f"{step.name}: at work")
        journal.parameters(flatten(step.settings) | {"seed": self.config.seed})
        journal.inputs(list(inputs.values()))
        try:
            outcome = work(space)
            space.lease.check()
        except BaseException as error:
            with contextlib.suppress(Exception):  # MLflow may be what failed: the first error is the one to tell
                journal.fail(f"{type(error).__name__}: {error}")
            raise
        artifact = Artifact(
            kind=step.name,
            uri=space.uri,
            digest=outcome.digest,
            fingerprint=space.fingerprint,
            run_id=journal.run_id,
            facts=outcome.facts,
        )
        found = verdicts(step.name, artifact.facts, self.config)
        journal.metrics(
            0, {key: float(value) for key, value in outcome.facts.items() if isinstance(value, (int, float))}
        )
        for name, png in outcome.pictures.items():
            journal.picture(name, png)
            objects.write_bytes(objects.join(space.uri, PICTURES_FOLDER, f"{name}.png"), png)
        self.tracker.remember_gates(journal.run_id, summarise_verdicts(found))
        journal.finish(artifact)
        objects.delete(objects.join(space.uri, commits.WORK_FOLDER))
        self.progress.say(
            f"{step.name}: finished in {format_duration(time.monotonic() - started)} (artifact {artifact.digest[:12]})"
        )
        return StepResult(artifact=artifact, made=True, verdicts=found, pictures=outcome.pictures)

    def _tell_gates(self, result: StepResult) -> None:
        """Remember the verdict, and say it where it is bad news."""
        verdict = summarise_verdicts(result.verdicts)
        if not result.made and result.verdicts and self.tracker.gates(result.artifact.run_id) != verdict:
            self.tracker.remember_gates(result.artifact.run_id, verdict)
        if not result.good:
            when = "just now" if result.made else "in an earlier run, with the same settings"
            self.progress.say(
                f"{result.artifact.kind}: its gates failed ({when}); it does not count as good. {verdict}"
            )


def _pictures(artifact: Artifact) -> dict[str, bytes]:
    folder = objects.join(artifact.uri, PICTURES_FOLDER)
    return {
        name.removesuffix(".png"): objects.read_bytes(objects.join(folder, name))
        for name in objects.object_sizes(folder)
    }

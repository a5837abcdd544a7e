"""The state of each step of a config, read only: creates, starts and deletes nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from components.artifacts import Artifact
from components.errors import StorageError
from components.store import commits, objects
from components.tracking.runs import ARTIFACT_TAG, INPUTS_TAG, Run
from pipeline.config import flatten
from pipeline.gates import Verdict
from pipeline.memo import Memo
from pipeline.step import Inputs, Step

MAX_REASONS = 3
"""Changed settings that a reason names."""
MAX_PARAMETER_LENGTH = 6000
"""Characters of a parameter that MLflow keeps."""


@dataclass(frozen=True, kw_only=True)
class StepState:
    """State of one step."""

    step: str
    artifact: Artifact | None = None
    """Its finished artifact; None when the step would run."""
    verdicts: tuple[Verdict, ...] = ()
    fingerprint: str | None = None
    """Digest of what it is asked to do; None while an input is missing."""
    run_id: str | None = None
    """MLflow run that made the artifact, or in which an interrupted step continues."""
    why: str = ""
    """Why or when it would run."""

    @property
    def good(self) -> bool:
        """Whether it is done and every gate passed."""
        return self.artifact is not None and all(verdict.passed for verdict in self.verdicts)

    def __str__(self) -> str:
        if self.artifact is None:
            return f"would run {self.why}"
        return "done" if self.good else "done, gate failed"


def step_states(memo: Memo | None, steps: Mapping[str, Step]) -> dict[str, StepState]:
    """State of every step; a step has no fingerprint yet while one of its inputs is not done.

    Without a memo, every step counts as never run.
    """
    states: dict[str, StepState] = {}
    for name, step in steps.items():
        missing = [needed for needed in step.inputs if states[needed].artifact is None]
        if missing:
            state = StepState(step=name, why=f"after {', '.join(missing)}")
        elif memo is None:
            state = StepState(step=name, why="(never ran)")
        else:
            inputs = {needed: artifact for needed in step.inputs if (artifact := states[needed].artifact)}
            state = _look_up(memo, step, inputs)
        failed = [
            each for each in _ancestors(steps, name) if states[each].artifact is not None and not states[each].good
        ]
        if state.artifact is None and failed:
            state = replace(state, why=f"once the gates of {', '.join(failed)} pass")
        states[name] = state
    return states


def _ancestors(steps: Mapping[str, Step], name: str) -> list[str]:
    above = {each for needed in steps[name].inputs for each in (needed, *_ancestors(steps, needed))}
    return [each for each in steps if each in above]  # in the order of the DAG


def _look_up(memo: Memo, step: Step, inputs: dict[str, Artifact]) -> StepState:
    try:
        artifact, faults = memo.find(step, inputs)
        fingerprint = memo.fingerprint(step, inputs)
    except (ValueError, StorageError) as error:  # no such folder of images, or no answer from the store
        return StepState(step=step.name, why=f"and fail: {error}")
    if artifact is None:
        run_id, why = _why_missing(memo, step, inputs, fingerprint)
        return StepState(step=step.name, fingerprint=fingerprint, run_id=run_id, why=why)
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        why = f"again: {faults[0]}{more}"
        return StepState(step=step.name, fingerprint=fingerprint, run_id=artifact.run_id, why=why)
    verdicts = tuple(step.judge(artifact))
    return StepState(
        step=step.name, artifact=artifact, verdicts=verdicts, fingerprint=fingerprint, run_id=artifact.run_id
    )


def _why_missing(memo: Memo, step: Step, inputs: Inputs, fingerprint: str) -> tuple[str | None, str]:
    """The unfinished MLflow run of a step without an artifact, and why there is none."""
    unfinished = [run for run in memo.tracker.runs_of(fingerprint) if ARTIFACT_TAG not in run.data.tags]
    if unfinished:
        work = objects.join(memo.artifact_folder(step, fingerprint), commits.WORK_FOLDER)
        resumes = "on from its last checkpoint" if objects.object_sizes(work) else "again"
        return unfinished[0].info.run_id, f"{resumes} (unfinished)"
    newest = memo.tracker.newest(step.name)
    if newest is None:
        return None, "(never ran)"
    reasons = [*_new_inputs(inputs, newest), *_changed_settings(memo, step, newest)]
    other = "the files in the folder changed" if step.observe is not None else "the step's own version changed"
    return None, f"({'; '.join(reasons) or other})"


def _new_inputs(inputs: Inputs, newest: Run) -> list[str]:
    digests = {link["kind"]: link["digest"] for link in json.loads(newest.data.tags.get(INPUTS_TAG, "[]"))}
    return [f"new {name}" for name, artifact in inputs.items() if digests.get(name) != artifact.digest]


def _changed_settings(memo: Memo, step: Step, newest: Run) -> list[str]:
    """Settings that differ from those of the step's newest run, the first few by name."""
    settings = flatten(step.settings) | {"seed": memo.config.seed}
    now = {key: str(value)[:MAX_PARAMETER_LENGTH] for key, value in settings.items()}
    then = newest.data.params
    changed = [
        f"{key} {then.get(key, '(unset)')} -> {now.get(key, '(unset)')}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    ]
    return [*changed[:MAX_REASONS], *(["..."] if len(changed) > MAX_REASONS else [])]

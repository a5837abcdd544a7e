"""How far each step of a config has come, seen from outside: makes, starts and deletes nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from components.artifacts import Artifact
from components.errors import StorageError
from components.store import commits, objects
from components.tracking.runs import ARTIFACT_TAG, INPUTS_TAG
from pipeline.config import flatten
from pipeline.dag import Step
from pipeline.gates import Verdict, verdicts
from pipeline.memo import Memo

MAX_REASONS = 3
"""Changed settings that a reason names."""


@dataclass(frozen=True, kw_only=True)
class StepState:
    """One step."""

    step: str
    artifact: Artifact | None = None
    """What it made; None: it would run."""
    verdicts: tuple[Verdict, ...] = ()
    fingerprint: str | None = None
    """What it is asked to do; None while an input is not there."""
    run_id: str | None = None
    """MLflow run that made the artifact, or that an interrupted step goes on in."""
    why: str = ""
    """Why it would run, and when."""

    @property
    def good(self) -> bool:
        """Whether it is done and every gate passed."""
        return self.artifact is not None and all(verdict.passed for verdict in self.verdicts)

    def __str__(self) -> str:
        if self.artifact is None:
            return f"would run {self.why}"
        return "done" if self.good else "done, gate failed"


def step_states(memo: Memo | None, steps: Mapping[str, Step]) -> dict[str, StepState]:
    """State of every step; the fingerprints of what follows a step that is not done cannot be known yet.

    Without a memo nothing has run, or nothing is to be looked up.
    """
    states: dict[str, StepState] = {}
    for name, step in steps.items():
        behind = [one for one in step.inputs if states[one].artifact is None]
        failed = [one for one in _ancestors(steps, name) if states[one].artifact is not None and not states[one].good]
        if behind:
            state = StepState(step=name, why=f"after {', '.join(behind)}")
        elif memo is None:
            state = StepState(step=name, why="(never ran)")
        else:
            state = _state(memo, step, {one: artifact for one in step.inputs if (artifact := states[one].artifact)})
        if state.artifact is None and failed:
            state = StepState(
                step=name,
                fingerprint=state.fingerprint,
                run_id=state.run_id,
                why=f"once the gates of {', '.join(failed)} pass",
            )
        states[name] = state
    return states


def _ancestors(steps: Mapping[str, Step], name: str) -> list[str]:
    above = {one for given in steps[name].inputs for one in (given, *_ancestors(steps, given))}
    return [one for one in steps if one in above]


def _state(memo: Memo, step: Step, inputs: dict[str, Artifact]) -> StepState:
    try:
        artifact, faults = memo.find(step, inputs)
        fingerprint = memo.fingerprint(step, inputs)
    except (ValueError, StorageError) as error:  # a folder of images that is not there, a store that does not answer
        return StepState(step=step.name, why=f"and fail: {error}")
    if artifact is None:
        run_id, why = _missing(memo, step, inputs, fingerprint)
        return StepState(step=step.name, fingerprint=fingerprint, run_id=run_id, why=why)
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        return StepState(
            step=step.name, fingerprint=fingerprint, run_id=artifact.run_id, why=f"again: {faults[0]}{more}"
        )
    judged = tuple(verdicts(step.name, artifact.facts, memo.config))
    return StepState(
        step=step.name, artifact=artifact, verdicts=judged, fingerprint=fingerprint, run_id=artifact.run_id
    )


def _missing(memo: Memo, step: Step, inputs: Mapping[str, Artifact], fingerprint: str) -> tuple[str | None, str]:
    """The unfinished MLflow run of a step without an artifact, and why there is none."""
    unfinished = [run for run in memo.tracker.runs_of(fingerprint) if ARTIFACT_TAG not in run.data.tags]
    if unfinished:
        kept = objects.object_sizes(objects.join(memo.root, step.name, fingerprint[:16], commits.WORK_FOLDER))
        return unfinished[0].info.run_id, "on from its last checkpoint (unfinished)" if kept else "again (unfinished)"
    before = memo.tracker.newest(step.name)
    if before is None:
        return None, "(never ran)"
    given = {link["kind"]: link["digest"] for link in json.loads(before.data.tags.get(INPUTS_TAG, "[]"))}
    renewed = [name for name, artifact in inputs.items() if given.get(name) != artifact.digest]
    now = {key: str(value)[:6000] for key, value in (flatten(step.settings) | {"seed": memo.config.seed}).items()}
    then = before.data.params
    changed = [
        f"{key} {then.get(key, '(unset)')} -> {now.get(key, '(unset)')}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key)
    ]
    reasons = [
        *(f"new {name}" for name in renewed),
        *changed[:MAX_REASONS],
        *(["..."] if len(changed) > MAX_REASONS else []),
    ]
    other = "the files in the folder changed" if step.name == "images" else "the step's own version changed"
    return None, f"({'; '.join(reasons) or other})"

"""pipeline/dag.py as orchestrator assets: a loop that names no step.

The orchestrator adds order, retries, gates as checks, schedules and its UI to the table. pipeline/memo.py decides
whether a step's work runs; pipeline/definitions.py adds the job, the schedule and the orchestrator's instance.
"""

import base64
import contextlib
from collections.abc import Iterator
from typing import Any

import dagster as dg

from components.errors import retry_helps
from components.stopping import check_stop, stop_requested
from pipeline.config import PipelineConfig
from pipeline.dag import groups_of
from pipeline.memo import StepResult
from pipeline.session import Session
from pipeline.step import Step

GROUP_NAME = "vqvae2"


def assets_of(config: PipelineConfig, session: Session) -> list[dg.AssetsDefinition]:
    """The assets of `config` in the order of the DAG, and the promotion; `session` is what they share in one run."""
    retry = dg.RetryPolicy(
        max_retries=config.orchestration.retries, delay=config.orchestration.retry_delay, backoff=dg.Backoff.EXPONENTIAL
    )
    return [*(_assets_of_group(group, session, retry) for group in groups_of(session.steps)), _promotion(session)]


def _assets_of_group(steps: list[Step], session: Session, retry: dg.RetryPolicy) -> dg.AssetsDefinition:
    """Steps that run at the same time: one asset each, made together; a retry runs only those that failed."""

    @dg.multi_asset(
        name=steps[0].group or steps[0].name,
        specs=[_spec(step) for step in steps],
        check_specs=[
            dg.AssetCheckSpec(gate.name, asset=step.name, blocking=True) for step in steps for gate in step.gates
        ],
        retry_policy=retry,
    )
    def materialise_group(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        with _failures(session):
            results, error = session.run_group(steps)
            # Before the error: the orchestrator keeps the steps that succeeded.
            yield from (_materialisation(session, result) for result in results)
            if error is not None:
                raise error

    return materialise_group


def _promotion(session: Session) -> dg.AssetsDefinition:
    @dg.asset(deps=list(session.steps), group_name=GROUP_NAME)
    def promotion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Gives the registered models of the run the alias `champion`, if every gate passed."""
        with _failures(session):
            versions = session.promote()
            return dg.MaterializeResult(metadata={"promoted": bool(versions), **versions})

    return promotion


def _spec(step: Step) -> dg.AssetSpec:
    return dg.AssetSpec(
        step.name,
        deps=list(step.inputs),
        description=step.summary,
        code_version=step.code_version,
        group_name=GROUP_NAME,
    )


def _materialisation(session: Session, result: StepResult) -> dg.MaterializeResult:
    """Metadata with figures, pictures and links, and the gates as asset checks."""
    artifact = result.artifact
    figures = artifact.read(session.steps[artifact.kind].facts).figures()
    metadata: dict[str, Any] = {
        "artifact": artifact.uri,
        "made in this run": result.made,
        "MLflow run": dg.MetadataValue.url(session.tracker.run_link(artifact.run_id)),
        **figures,
    }
    for name, png in result.pictures.items():
        metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
        metadata[f"{name} file"] = dg.MetadataValue.path(str(session.picture_path(artifact.kind, name)))
    checks = [
        dg.AssetCheckResult(
            passed=verdict.passed,
            check_name=verdict.gate,
            asset_key=artifact.kind,
            description=str(verdict),
            metadata={"value": verdict.value, "limit": verdict.limit},
        )
        for verdict in result.verdicts
    ]
    judged = {verdict.gate for verdict in result.verdicts}
    checks += [  # the orchestrator expects a result of every check
        dg.AssetCheckResult(
            passed=True,
            check_name=gate.name,
            asset_key=artifact.kind,
            description="not judged: the artifact has no such figure",
        )
        for gate in session.steps[artifact.kind].gates
        if gate.name not in judged
    ]
    return dg.MaterializeResult(
        asset_key=artifact.kind,
        metadata=metadata,
        check_results=checks,
        data_version=dg.DataVersion(artifact.digest),  # equal content does not make later steps stale
    )


@contextlib.contextmanager
def _failures(session: Session) -> Iterator[None]:
    """Store a step's error in the session, and prevent retries that cannot help."""
    try:
        check_stop()
        yield
        session.failure = None  # a retry succeeded after an earlier failure
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as interrupt:
        session.failure = interrupt if isinstance(interrupt, KeyboardInterrupt) else KeyboardInterrupt()
        # The orchestrator would retry an interrupted step.
        raise dg.Failure(description="stopped", allow_retries=False) from interrupt
    except Exception as error:
        session.failure = error
        if not retry_helps(error) or stop_requested():
            raise dg.Failure(description=str(error), allow_retries=False) from error
        session.progress.say(f"failed: {type(error).__name__}: {error}")
        raise

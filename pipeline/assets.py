"""VQ-VAE-2, line by line: Algorithms 1 and 2 of Razavi et al. 2019 as orchestrator assets, in the paper's order.

    images -> tokenizer -> codes -> prior_<level> ... -> generator -> evaluation -> promotion
       |                              (all levels at the same time)       ^            ^
       +--> classifier -----------------------------------------------------+            |
       +--> judge ------------------------------------------------------------------------+

An asset here is thin: it names its inputs and the function of a component that makes it. Whether that function runs is
memo.py's decision; what the orchestrator adds is the order, retries, the checks as gates, schedules and the UI.
"""

import base64
import contextlib
from collections.abc import Iterator
from typing import Any

import dagster as dg
import yaml

from components.errors import ClusterUnreachable, LeaseHeld, LeaseLost, MissingArtifact, StorageError, TooFewResources
from components.workspace import StepOutput, Workspace
from pipeline.config import PipelineConfig, to_plain
from pipeline.dag import Step, side_by_side, steps_of
from pipeline.gates import gate_names
from pipeline.memo import StepResult
from pipeline.session import Session

FINAL = (
    ValueError,
    TypeError,
    ImportError,
    ClusterUnreachable,
    LeaseHeld,
    LeaseLost,
    MissingArtifact,
    StorageError,
    TooFewResources,
)
"""Errors that trying again cannot mend; all others are retried."""


def assets_of(config: PipelineConfig, session: Session) -> list[dg.AssetsDefinition]:
    """The DAG of `config`; `session` is what the assets of one run share."""
    retry = dg.RetryPolicy(
        max_retries=config.orchestration.retries, delay=config.orchestration.retry_delay, backoff=dg.Backoff.EXPONENTIAL
    )
    steps, side = steps_of(config), side_by_side(config)
    stage2 = tuple(name for name in side if name.startswith("prior_"))

    # ------------------------------------------------------------------------------------------ the data
    @dg.asset(**_about(steps["images"], config), retry_policy=retry)
    def images(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """A snapshot of the dataset: which images there are, fixed, so that every step sees the same."""

        def work(space: Workspace) -> StepOutput:
            from components.images.step import take_snapshot

            return take_snapshot(config.images, workspace=space)

        if config.images.source != "digits":
            _ = session.cluster
        return _run(session, "images", work)

    # ------------------------------------------------------------------------------------------ stage 1: Algorithm 1
    @dg.asset(**_about(steps["tokenizer"], config), retry_policy=retry)
    def tokenizer(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Algorithm 1: h_top = E_top(x), quantize, h_bottom = E_bottom(x, e_top), quantize, x^ = D(e_top, e_bottom)."""

        def work(space: Workspace) -> StepOutput:
            from components.tokenizer.step import fit_tokenizer

            return fit_tokenizer(
                config.vqvae,
                config.images,
                session.artifact("images"),
                resources=config.resources.tokenizer,
                cluster=session.cluster,
                workspace=space,
            )

        return _run(session, "tokenizer", work, after=session.register_tokenizer)

    # ------------------------------------------------------------------------------------------ stage 2: Algorithm 2
    @dg.asset(**_about(steps["codes"], config), retry_policy=retry)
    def codes(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Algorithm 2, lines 1-6: T_top, T_bottom <- quantized encodings of every image of the dataset."""

        def work(space: Workspace) -> StepOutput:
            from components.codes.step import encode_snapshot

            return encode_snapshot(
                config.codes,
                session.artifact("images").uri,
                session.tokenizer_files(),
                max_rejects=config.images.max_rejects,
                resources=config.resources.codes,
                cluster=session.cluster,
                workspace=space,
            )

        return _run(session, "codes", work)

    def prior_of(level: str) -> Any:
        def work(space: Workspace) -> StepOutput:
            from components.priors.step import fit_prior

            classes = int(session.artifact("images").facts["classes"] or 0)
            return fit_prior(
                config.priors[level],
                level,
                session.artifact("codes"),
                classes=classes,
                dimensions=config.images.image_size**2 * config.images.channels,
                resources=config.resources.prior,
                cluster=session.cluster,
                workspace=space,
            )

        return work

    def classifier_of(name: str) -> Any:
        def work(space: Workspace) -> StepOutput:
            from components.classifier.step import fit_classifier

            settings = config.classifier if name == "classifier" else config.judge
            return fit_classifier(
                settings,
                config.images,
                session.artifact("images"),
                program=session.program(settings.program) if settings.program else None,
                resources=config.resources.classifier,
                cluster=session.cluster,
                workspace=space,
            )

        return work

    @dg.multi_asset(
        name="priors",
        specs=[dg.AssetSpec(**_spec(steps[name], config)) for name in side],
        check_specs=[check for name in side for check in _checks(name, config)],
        retry_policy=retry,
    )
    def priors(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        """Algorithm 2, lines 7-9: p_top = TrainPixelCNN(T_top), p_bottom = TrainCondPixelCNN(T_bottom, T_top): one Ray
        Train job a level, all at the same time, and beside them the classifiers."""
        works = {name: prior_of(name.removeprefix("prior_")) for name in stage2} | {
            name: classifier_of(name) for name in ("classifier", "judge")
        }
        with _failures(session):
            done, error = session.side_by_side(works)
            for result in done:
                yield _shown(session, result, asset=True)
            if error is not None:
                raise error

    # ------------------------------------------------------------------------------------------ sampling: lines 10-14
    @dg.asset(**_about(steps["generator"], config), retry_policy=retry)
    def generator(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Algorithm 2, lines 10-14: e_top ~ p_top, e_bottom ~ p_bottom(e_top), x <- D(e_top, e_bottom); section 3.3."""

        def work(space: Workspace) -> StepOutput:
            from components.generator.step import assemble_generator

            return assemble_generator(config.generator, session.inputs("generator"), workspace=space)

        return _run(session, "generator", work, after=session.register_generator)

    @dg.asset(**_about(steps["evaluation"], config), retry_policy=retry)
    def evaluation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Section 4: how good and how diverse the samples are, before and after rejection; a report to read."""

        def work(space: Workspace) -> StepOutput:
            from components.evaluation.step import evaluate_generator

            return evaluate_generator(
                config.evaluation,
                config.images,
                session.inputs("evaluation"),
                _lineage(session),
                title=f"{config.name}: VQ-VAE-2 samples",
                settings=yaml.safe_dump(to_plain(config), sort_keys=False),
                resources=config.resources.codes,
                cluster=session.cluster,
                workspace=space,
            )

        return _run(session, "evaluation", work)

    @dg.asset(deps=["generator", "tokenizer", "evaluation"], group_name="vqvae2")
    def promotion(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Through the gates only: the registered tokenizer and generator become `champion`."""
        with _failures(session):
            return dg.MaterializeResult(metadata=promote(session))

    return [images, tokenizer, codes, priors, generator, evaluation, promotion]


# --- the registry -----------------------------------------------------------------------------------------------------


def promote(session: Session) -> dict[str, Any]:
    """Give the registered models of this run the alias `champion`, if every gate passed."""
    if not session.good:
        return {"promoted": False}
    versions = {}
    for kind in ("tokenizer", "generator"):
        model = session.tracker.registered(f"{session.config.name}-{kind}", session.artifact(kind).digest)
        if model is not None:
            session.tracker.promote(model)
            versions[model.name] = int(model.version)
    return {"promoted": True, **versions}


# --- what the orchestrator shows --------------------------------------------------------------------------------------


def _spec(step: Step, config: PipelineConfig) -> dict[str, Any]:
    return {"key": step.name, "deps": list(step.inputs), "code_version": step.code_version, "group_name": "vqvae2"}


def _about(step: Step, config: PipelineConfig) -> dict[str, Any]:
    return _spec(step, config) | {"check_specs": _checks(step.name, config)}


def _checks(name: str, config: PipelineConfig) -> list[dg.AssetCheckSpec]:
    return [dg.AssetCheckSpec(gate, asset=name, blocking=True) for gate in gate_names(name, config)]


def _run(session: Session, name: str, work: Any, after: Any = None) -> dg.MaterializeResult:
    with _failures(session):
        result = session.step(name, work)
        if after is not None and result.good:
            after()
        return _shown(session, result)


def _shown(session: Session, result: StepResult, asset: bool = False) -> dg.MaterializeResult:
    """Metadata with figures, pictures and links, and the gates as asset checks."""
    artifact = result.artifact
    metadata: dict[str, Any] = {
        "artifact": artifact.uri,
        "made in this run": result.made,
        "MLflow run": dg.MetadataValue.url(session.tracker.run_link(artifact.run_id)),
        **{key: value for key, value in artifact.facts.items() if isinstance(value, (int, float, str))},
    }
    for name, png in result.pictures.items():
        path = session.keep_picture(artifact.kind, name, png)
        metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
        metadata[f"{name} file"] = dg.MetadataValue.path(str(path))
    checks = [
        dg.AssetCheckResult(
            passed=one.passed,
            check_name=one.gate,
            asset_key=artifact.kind,
            description=str(one),
            metadata={"value": one.value, "limit": one.limit},
        )
        for one in result.verdicts
    ]
    return dg.MaterializeResult(
        asset_key=artifact.kind if asset else None,
        metadata=metadata,
        check_results=checks,
        data_version=dg.DataVersion(artifact.digest),
    )


def _lineage(session: Session) -> list[Any]:
    """Rows of the report's table: every artifact that the generator came from."""
    from components.evaluation.report import LineageRow

    made = [session.artifact(name) for name in session.memo.steps if name != "evaluation"]
    return [
        LineageRow(kind=one.kind, digest=one.digest, run_id=one.run_id, url=session.tracker.run_link(one.run_id))
        for one in made
    ]


@contextlib.contextmanager
def _failures(session: Session) -> Iterator[None]:
    """Remember a step's error for the summary, and keep what cannot be mended by trying again from being retried."""
    try:
        yield
        session.failure = None  # a retry made good what failed before
    except Exception as error:
        session.failure = error
        if isinstance(error, FINAL):
            raise dg.Failure(description=str(error), allow_retries=False) from error
        session.progress.say(f"failed: {type(error).__name__}: {error}")
        raise

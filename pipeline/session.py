"""One run of the DAG: its memo, its cluster (joined when a step needs it), its failure. Knows no orchestrator."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts import Artifact
from components.errors import MissingArtifact, retry_helps
from components.progress import Progress
from components.stopping import request_stop
from components.store import objects
from components.store.probes import check_writable
from components.tracking.registry import RegisteredModel
from components.tracking.runs import Tracker
from components.tracking.server import has_been_used, tracking_uri
from pipeline.config import PipelineConfig
from pipeline.dag import dag_of, local_cpus
from pipeline.memo import Memo, StepResult
from pipeline.step import Inputs, Step

if TYPE_CHECKING:
    from components.cluster.step import Cluster

LEAVE_SECONDS = 20.0
"""Seconds that steps side by side have to leave their work in order when the run is interrupted."""


class Session:
    """What the steps of one pipeline run share. Connections are opened when they are first needed."""

    def __init__(self, config: PipelineConfig, progress: Progress | None = None, memo: Memo | None = None) -> None:
        self.config = config
        self.progress = progress or Progress()
        self.steps = dag_of(config)
        self.failure: BaseException | None = None
        self._memo = memo
        self._cluster: Cluster | None = None

    @property
    def tracker(self) -> Tracker:
        """The experiment in MLflow, through the memo."""
        return self.memo.tracker

    @property
    def memo(self) -> Memo:
        """The memo; connects to MLflow and the artifact store, and raises when one of them does not answer."""
        if self._memo is None:
            check_writable(objects.absolute(self.config.artifact_root))
            tracker = Tracker(
                uri=None,
                name=self.config.name,
                state=self.config.state,
                patience=self.config.orchestration.tracking_wait,
                say=self.progress.say,
            )
            self._memo = Memo(self.config, tracker, self.progress, connect=self.cluster)
        return self._memo

    def cluster(self) -> "Cluster":
        """Ray, joined or started at the first call, which must come from the thread that runs all steps.

        Raises UsageError when a node of the cluster does not see the artifact root.
        """
        if self._cluster is None:
            from components.cluster.step import Cluster

            self.progress.say("joining Ray")
            seconds = self.config.orchestration.autoscale_wait
            self._cluster = Cluster(local_cpus=local_cpus(self.steps), autoscale_seconds=seconds)
            self.progress.say(self._cluster.describe())
            self._cluster.check_shared(objects.absolute(self.config.artifact_root), "artifact_root")
        return self._cluster

    # --- steps --------------------------------------------------------------------------------------------------------

    def artifact(self, name: str) -> Artifact:
        """The finished artifact of step `name`, of this run or of an earlier one; raises MissingArtifact."""
        if name in self.memo.results:
            return self.memo.results[name].artifact
        step = self.steps[name]
        artifact, faults = self.memo.find(step, self.inputs(step))
        if artifact is None or faults:
            raise MissingArtifact(f"step '{name}' has no finished artifact for this config: run the whole pipeline")
        return artifact

    def inputs(self, step: Step) -> Inputs:
        """Artifacts that `step` is made from; raises MissingArtifact."""
        return {name: self.artifact(name) for name in step.inputs}

    def run_step(self, step: Step) -> StepResult:
        """Get or run one step; register its model if its gates passed; copy pictures and documents to `folder()`."""
        result = self.memo.get_or_run(step, self.inputs(step))
        if result.good and step.package is not None:
            self._register(step, result.artifact)
        for name, png in result.pictures.items():
            self._show(self.picture_path(step.name, name), png)
        for name, text in result.documents.items():
            self._show(self.folder() / name, text)
        return result

    def run_group(self, steps: Sequence[Step]) -> tuple[list[StepResult], BaseException | None]:
        """Get or run several steps at the same time; when one fails, that is said at once and the others finish.

        Returns the results, and the failure to report: one that a retry cannot help comes first.
        """
        if len(steps) == 1:
            return [self.run_step(steps[0])], None
        if any(self._is_missing(step) for step in steps):
            self.cluster()  # Ray ends with the thread that starts it: not one of those below
        pool = ThreadPoolExecutor(len(steps), thread_name_prefix="step")
        futures = [pool.submit(self._run_beside_others, step) for step in steps]
        try:
            wait(futures)
        except BaseException:  # the orchestrator interrupts this thread, and knows nothing of those of the steps
            request_stop()
            wait(futures, LEAVE_SECONDS)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        results = [future.result() for future in futures if future.exception() is None]
        errors = [error for future in futures if (error := future.exception())]
        # A stop first, then what no retry helps: the orchestrator would try the group again, a lost lease included.
        errors.sort(key=lambda error: (not isinstance(error, KeyboardInterrupt), retry_helps(error)))
        return results, errors[0] if errors else None

    def _run_beside_others(self, step: Step) -> StepResult:
        try:
            return self.run_step(step)
        except Exception as error:  # raised once the others have finished, which may take days
            self.progress.say(f"{step.name}: failed, the steps beside it go on: {error}")
            raise

    def _is_missing(self, step: Step) -> bool:
        artifact, faults = self.memo.find(step, self.inputs(step))
        return artifact is None or bool(faults)

    # --- models -------------------------------------------------------------------------------------------------------

    def registered(self, step: Step) -> RegisteredModel | None:
        """The registered version of the step's artifact; None when it is not registered."""
        return self.tracker.registry.version_of(self._model_name(step), self.artifact(step.name).digest)

    def _register(self, step: Step, artifact: Artifact) -> None:
        """Register the step's model, unless this artifact is registered already."""
        registry, name = self.tracker.registry, self._model_name(step)
        if step.package is None or registry.version_of(name, artifact.digest) is not None:
            return
        package = step.package(artifact)
        model = registry.register(name=name, package=package, run_id=artifact.run_id, digest=artifact.digest)
        self.progress.say(f"{step.name}: registered as {model.uri}")

    def promote(self) -> dict[str, int]:
        """Give the registered models of this run the alias `champion` if every gate passed; returns their versions."""
        if not self.good:
            return {}
        models = [model for step in self.model_steps if (model := self.registered(step)) is not None]
        for model in models:
            self.tracker.registry.promote(model)
        return {model.name: int(model.version) for model in models}

    @property
    def model_steps(self) -> list[Step]:
        """Steps whose artifacts are registered as models."""
        return [step for step in self.steps.values() if step.package is not None]

    def _model_name(self, step: Step) -> str:
        return f"{self.config.name}-{step.name}"

    # --- the outcome --------------------------------------------------------------------------------------------------

    @property
    def good(self) -> bool:
        """Whether every gate of every step so far passed."""
        return all(result.good for result in self.memo.results.values())

    def folder(self) -> Path:
        """Local folder with the pictures and the report of the newest run."""
        return Path(self.config.state).absolute() / "latest" / self.config.name

    def picture_path(self, step: str, name: str) -> Path:
        """File of a step's picture in `folder()`."""
        return self.folder() / f"{step}-{name}.png"

    def _show(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def close(self, succeeded: bool) -> None:
        """End the pipeline's MLflow run, and leave the cluster; from now on nobody waits for MLflow."""
        try:
            if self._memo is not None:
                with contextlib.suppress(Exception):  # an error here must not hide an earlier one
                    self._memo.close(succeeded)
        finally:
            if self._cluster is not None:
                self._cluster.close()


def look_up_memo(config: PipelineConfig) -> Memo | None:
    """The memo of a config, for reading only: creates nothing, and is None when nothing has run yet.

    Raises TrackingError when the tracking server does not answer.
    """
    if not has_been_used(tracking_uri(config.state)):
        return None
    return Memo(config, Tracker(uri=None, name=config.name, state=config.state), Progress())

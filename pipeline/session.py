"""One run of the DAG: its memo, its cluster (joined when the first step needs it), its failure."""

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.artifacts import Artifact
from components.errors import MissingArtifact
from components.progress import Progress
from components.store import commits, objects
from components.tracking.runs import Tracker, has_been_used, tracking_uri
from components.workspace import StepOutput, Workspace
from pipeline.config import PipelineConfig
from pipeline.dag import local_cpus
from pipeline.memo import Memo, StepResult

if TYPE_CHECKING:
    from components.cluster.step import Cluster
    from components.codes.dataset import TokenizerFiles

StepWork = Callable[[Workspace], StepOutput]


class Session:
    """What the assets of one pipeline run share. Nothing is opened before it is needed."""

    def __init__(self, config: PipelineConfig, progress: Progress | None = None, memo: Memo | None = None) -> None:
        self.config = config
        self.progress = progress or Progress()
        self.failure: BaseException | None = None
        self._memo = memo
        self._cluster: Cluster | None = None

    @property
    def tracker(self) -> Tracker:
        """MLflow."""
        return self.memo.tracker

    @property
    def memo(self) -> Memo:
        """What is done; connects to MLflow and the artifact store, raising where they do not answer."""
        if self._memo is None:
            self._memo = open_memo(self.config, self.progress)
        return self._memo

    @property
    def cluster(self) -> "Cluster":
        """Ray, joined or started on first use, which must be in the main thread."""
        if self._cluster is None:
            from components.cluster.step import Cluster

            self.progress.say("joining Ray")
            self._cluster = Cluster(local_cpus=local_cpus(self.config), wait=self.config.orchestration.autoscale_wait)
            self.progress.say(self._cluster.describe())
        return self._cluster

    def artifact(self, name: str) -> Artifact:
        """The finished artifact of step `name`, of this run or of an earlier one; raises NotMade."""
        if name in self.memo.results:
            return self.memo.results[name].artifact
        step = self.memo.steps[name]
        artifact, faults = self.memo.find(step, {one: self.artifact(one) for one in step.inputs})
        if artifact is None or faults:
            raise MissingArtifact(f"step '{name}' has no finished artifact for this config: run the whole pipeline")
        return artifact

    def inputs(self, name: str) -> dict[str, Artifact]:
        """Artifacts that step `name` is made from."""
        return {one: self.artifact(one) for one in self.memo.steps[name].inputs}

    def step(self, name: str, work: StepWork) -> StepResult:
        """Get or run one step."""
        return self.memo.get_or_run(name, self.inputs(name), work)

    def side_by_side(self, works: Mapping[str, StepWork]) -> tuple[list[StepResult], BaseException | None]:
        """Get or run several steps at the same time; one that fails leaves the others to finish.

        Returns what is done, and the first failure.
        """
        if any(self._is_missing(name) for name in works):
            _ = self.cluster  # Ray ends with the thread that starts it: not one of the threads below
        pool = ThreadPoolExecutor(len(works), thread_name_prefix="step")
        futures = {name: pool.submit(self.step, name, work) for name, work in works.items()}
        try:
            wait(futures.values())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        done = [future.result() for future in futures.values() if future.exception() is None]
        errors = [error for future in futures.values() if (error := future.exception())]
        for error in errors[1:]:
            self.progress.say(f"also failed: {error}")
        return done, errors[0] if errors else None

    def _is_missing(self, name: str) -> bool:
        step = self.memo.steps[name]
        artifact, faults = self.memo.find(step, self.inputs(name))
        return artifact is None or bool(faults)

    def program(self, place: str) -> bytes:
        """The user's own classifier: content of the .pt2 file at a path or URI, or in the registered models:/..."""
        if place.startswith("models:/"):
            return self.tracker.model_program(place)
        try:
            return objects.read_bytes(objects.absolute(place))
        except FileNotFoundError:
            raise ValueError(f"classifier.program must name a .pt2 file, found nothing at {place}") from None

    def is_registered(self, kind: str) -> bool:
        """Whether the artifact of step `kind` is in the registry."""
        return self.tracker.registered(f"{self.config.name}-{kind}", self.artifact(kind).digest) is not None

    def register_tokenizer(self) -> None:
        """Register the tokenizer as `<name>-tokenizer`, unless this very one is registered already."""
        if self.is_registered("tokenizer"):
            return
        from components.store.weights import describe_tokenizer
        from components.tokenizer import served

        folder = commits.local_copy(self.artifact("tokenizer").uri)
        example = served.tokenizer_example(describe_tokenizer(folder))
        self._register("tokenizer", served.__file__, {"tokenizer": folder}, example, served.TOKENIZER_PARAMETERS)

    def tokenizer_files(self) -> "TokenizerFiles":
        """The tokenizer as the codes step takes it: on this machine's disk, with its place in the registry."""
        from components.codes.dataset import TokenizerFiles

        artifact = self.artifact("tokenizer")
        model = self.tracker.registered(f"{self.config.name}-tokenizer", artifact.digest)
        return TokenizerFiles(
            folder=commits.local_copy(artifact.uri),
            digest=artifact.digest,
            model=model.uri if model else None,
            run_id=artifact.run_id,
        )

    def register_generator(self) -> None:
        """Register the generator as `<name>-generator`, unless this very one is registered already."""
        if self.is_registered("generator"):
            return
        from components.generator import served
        from components.store.weights import describe_classifier

        folder = commits.local_copy(self.artifact("generator").uri)
        parts = {part: folder / part for part in self.memo.steps["generator"].inputs}
        example = served.generator_example(describe_classifier(parts["classifier"]).class_names)
        self._register("generator", served.__file__, parts, example, served.served_parameters(self.config.generator))

    def _register(
        self, kind: str, code: str, folders: Mapping[str, Path], example: Any, parameters: Mapping[str, Any]
    ) -> None:
        from components.serving import served_requirements

        name, artifact = f"{self.config.name}-{kind}", self.artifact(kind)
        model = self.tracker.register(
            name=name,
            run_id=artifact.run_id,
            served=Path(code),
            folders=folders,
            example=example,
            signature_params=parameters,
            requirements=served_requirements(),
            digest=artifact.digest,
        )
        self.progress.say(f"{kind}: registered as {model.uri}")

    @property
    def good(self) -> bool:
        """Whether every gate of every step so far passed."""
        return all(result.good for result in self.memo.results.values())

    def folder(self) -> Path:
        """Local folder where a person finds the pictures and the report of the newest run."""
        return Path(self.config.state).absolute() / "latest" / self.config.name

    def keep_picture(self, step: str, name: str, png: bytes) -> Path:
        """Write a PNG into `folder()`; returns its path."""
        path = self.folder() / f"{step}-{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
        return path

    def close(self, succeeded: bool) -> None:
        """End the pipeline's MLflow run."""
        if self._memo is not None:
            with contextlib.suppress(Exception):  # a failure to say goodbye must not hide what came before
                self._memo.close(succeeded)


def open_memo(config: PipelineConfig, progress: Progress) -> Memo:
    """Connect to the artifact store and MLflow; raises StorageError or TrackingError when one does not answer."""
    objects.check_writable(objects.absolute(config.artifact_root))
    return Memo(config, Tracker(uri=None, name=config.name, state=config.state), progress)


def look_up_memo(config: PipelineConfig) -> Memo | None:
    """The memo of a config, to read only: makes nothing, and is None where nothing has run yet.

    Raises TrackingError when the tracking server does not answer.
    """
    if not has_been_used(tracking_uri(config.state)):
        return None
    return Memo(config, Tracker(uri=None, name=config.name, state=config.state), Progress())

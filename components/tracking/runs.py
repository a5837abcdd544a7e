"""MLflow runs: one parent run per pipeline run, one child run per step.

A step's run carries tags that tie it to the artifact store:

    vqvae2.step         tokenizer, codes, prior_top, ...
    vqvae2.fingerprint  what the step was asked to do
    vqvae2.artifact     the artifact's record (JSON), written when it is committed
    vqvae2.inputs       records of the artifacts it was made from (JSON)
    vqvae2.gates        passed | failed: <which, and by how much>
    vqvae2.git          revision of the code
    vqvae2.error        the error that ended the step; removed when the run is continued

The parent run carries vqvae2.pipeline (digest of the config) and vqvae2.git.
"""

import io
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from PIL import Image

from components.artifacts import Artifact
from components.errors import UnknownModel
from components.tracking.registry import ModelRegistry
from components.tracking.server import TrackingServer, sqlite_file, tracking_uri

STEP_TAG, FINGERPRINT_TAG, ARTIFACT_TAG = "vqvae2.step", "vqvae2.fingerprint", "vqvae2.artifact"
INPUTS_TAG, GATES_TAG, GIT_TAG, PIPELINE_TAG = "vqvae2.inputs", "vqvae2.gates", "vqvae2.git", "vqvae2.pipeline"
ERROR_TAG = "vqvae2.error"
PARENT_TAG = "mlflow.parentRunId"

MAX_PARAMETER_CHARACTERS = 6000
"""MLflow's limit for the value of a parameter."""
MAX_PARAMETERS_PER_REQUEST = 100
"""MLflow's limit for one batch."""
MAX_DIGEST_CHARACTERS = 36
"""MLflow's limit for the digest of a dataset."""
MAX_ERROR_CHARACTERS = 2000
"""Characters of an error that a run's tag keeps."""
MAX_RUNS_FOUND = 100
"""Largest number of runs that a search returns."""
MAX_DATASET_TRIES = 3
"""Attempts at logging a run's inputs while other processes log the same datasets."""

_dataset_lock = threading.Lock()


def git_revision() -> str:
    """Revision of this code: GIT_REVISION where it is set (container images), else git's, else 'unknown'."""
    if revision := os.environ.get("GIT_REVISION"):
        return revision
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


class RunJournal:
    """The MLflow run of a step: a Journal for the step, and the pipeline's records about it."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id
        self._last_update: dict[str, int] = {}  # by metric: what a resumed fit logs again is skipped
        for key in client.get_run(run_id).data.metrics:
            self._last_update[key] = max(metric.step for metric in client.get_metric_history(run_id, key))

    # --- what a step writes -------------------------------------------------------------------------------------------

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` at update `step`, leaving out those already logged at this update or a later one."""
        new = {key: value for key, value in values.items() if self._last_update.get(key, -1) < step}  # not yet logged
        now = int(time.time() * 1000)  # milliseconds
        if new:
            self._client.log_batch(
                self.run_id, metrics=[Metric(key, float(value), now, step) for key, value in new.items()]
            )
            self._last_update |= dict.fromkeys(new, step)

    def picture(self, name: str, png: bytes, step: int | None = None) -> None:
        """A PNG under pictures/; with `step`, one of a series in MLflow's image view."""
        if step is None:
            self._log_file(f"pictures/{name}.png", png)
            return
        with Image.open(io.BytesIO(png)) as image:
            self._client.log_image(self.run_id, image, key=name, step=step)

    def document(self, name: str, text: str) -> None:
        """A text file at the top of the run's artifacts."""
        self._log_file(name, text.encode())

    def _log_file(self, path: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / Path(path).name
            local.write_bytes(data)
            self._client.log_artifact(self.run_id, str(local), str(Path(path).parent) if "/" in path else None)

    # --- what the pipeline writes -------------------------------------------------------------------------------------

    def parameters(self, values: Mapping[str, object]) -> None:
        """Log flat settings that the run does not have yet; values are cut at MLflow's limit."""
        logged = self._client.get_run(self.run_id).data.params
        new = [Param(key, str(value)[:MAX_PARAMETER_CHARACTERS]) for key, value in values.items() if key not in logged]
        for start in range(0, len(new), MAX_PARAMETERS_PER_REQUEST):
            self._client.log_batch(self.run_id, params=new[start : start + MAX_PARAMETERS_PER_REQUEST])

    def inputs(self, artifacts: Sequence[Artifact]) -> None:
        """Record what the run is made from: as MLflow datasets with digests, and in the tag that `ancestry` follows."""
        datasets = []
        for artifact in artifacts:
            source = json.dumps({"uri": artifact.uri, "fingerprint": artifact.fingerprint})
            dataset = Dataset(artifact.kind, artifact.digest[:MAX_DIGEST_CHARACTERS], "vqvae2", source)
            datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", artifact.kind)]))
        if datasets:
            self._log_datasets(datasets)
        links = [
            {"kind": artifact.kind, "digest": artifact.digest, "run_id": artifact.run_id, "uri": artifact.uri}
            for artifact in artifacts
        ]
        self._client.set_tag(self.run_id, INPUTS_TAG, json.dumps(links))

    def _log_datasets(self, datasets: Sequence[DatasetInput]) -> None:
        """Log inputs, even while other processes log the same ones.

        MLflow looks a dataset up and then inserts it: of two callers that do so at the same time, one fails. The lock
        separates the steps of this process. After a collision with another process the dataset exists: try again.
        """
        for attempt in range(MAX_DATASET_TRIES):
            try:
                with _dataset_lock:
                    return self._client.log_inputs(self.run_id, datasets=datasets)
            except MlflowException as error:
                if "unique constraint" not in str(error).lower() or attempt == MAX_DATASET_TRIES - 1:
                    raise

    def finish(self, artifact: Artifact) -> None:
        """End the run once its artifact is committed, and store the artifact's record in it."""
        self._client.set_tag(self.run_id, ARTIFACT_TAG, artifact.to_json())
        self._client.set_terminated(self.run_id, "FINISHED")

    def fail(self, reason: str) -> None:
        """Mark the run as failed; it stays open for the next attempt at the same step."""
        self._client.set_tag(self.run_id, ERROR_TAG, reason[:MAX_ERROR_CHARACTERS])
        self._client.update_run(self.run_id, status="FAILED")


class Tracker:
    """The experiment of one pipeline, and the model registry beside it."""

    def __init__(self, *, uri: str | None, name: str, state: str) -> None:
        """Connect; the experiment `name` is created with its first run.

        Args:
            uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, or SQLite under `state`.
            name: experiment's name.
            state: local folder of the default database, and of the files of runs in any SQLite database.

        Raises TrackingError when the server does not answer.
        """
        self.server = TrackingServer(uri or tracking_uri(state))
        self.registry = ModelRegistry(self.server)
        self.name = name
        is_sqlite = sqlite_file(self.uri) is not None
        self._artifact_location = (Path(state).absolute() / "mlflow-artifacts").as_uri() if is_sqlite else None
        with self.server.translate_errors():
            experiment = self.client.get_experiment_by_name(name)
        self._experiment_id = experiment.experiment_id if experiment else None

    @property
    def uri(self) -> str:
        """MLflow tracking URI; it may hold a password."""
        return self.server.uri

    @property
    def client(self) -> MlflowClient:
        """MLflow's client of this store."""
        return self.server.client

    @property
    def experiment_id(self) -> str:
        """The pipeline's experiment, created on first use; methods that only read do not create it."""
        with self.server.lock:
            if self._experiment_id is None:
                with self.server.translate_errors():
                    self._experiment_id = self._create_experiment()
            return self._experiment_id

    def _create_experiment(self) -> str:
        try:
            return self.client.create_experiment(self.name, artifact_location=self._artifact_location)
        except MlflowException:  # another process may have created it meanwhile
            experiment = self.client.get_experiment_by_name(self.name)
            if experiment is None:
                raise
            return experiment.experiment_id

    # --- starting and ending runs -------------------------------------------------------------------------------------

    def pipeline_run(self, fingerprint: str, parameters: Mapping[str, object]) -> str:
        """Id of the parent run for the config with this fingerprint: the unfinished one, or a new one."""
        with self.server.lock:
            for run in self._search(f"tags.`{PIPELINE_TAG}` = '{fingerprint}'"):
                if run.info.status != "FINISHED":
                    self.client.update_run(run.info.run_id, status="RUNNING")
                    return run.info.run_id
            tags = {PIPELINE_TAG: fingerprint, GIT_TAG: git_revision()}
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{self.name} pipeline")
            RunJournal(self.client, run.info.run_id).parameters(parameters)
            return run.info.run_id

    def close_pipeline_run(self, run_id: str, succeeded: bool) -> None:
        """End a parent run; a failed one is continued by the next pipeline run of the same config."""
        if succeeded:
            self.client.set_terminated(run_id, "FINISHED")
        else:
            self.client.update_run(run_id, status="FAILED")

    def run_journal(self, step: str, fingerprint: str, parent: str) -> RunJournal:
        """Journal of the unfinished run of this fingerprint, or of a new one below the run `parent`."""
        for run in self.runs_of(fingerprint):
            if ARTIFACT_TAG not in run.data.tags:
                self.client.update_run(run.info.run_id, status="RUNNING")
                if ERROR_TAG in run.data.tags:
                    self.client.delete_tag(run.info.run_id, ERROR_TAG)
                return RunJournal(self.client, run.info.run_id)
        tags = {STEP_TAG: step, FINGERPRINT_TAG: fingerprint, PARENT_TAG: parent, GIT_TAG: git_revision()}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=step)
        return RunJournal(self.client, run.info.run_id)

    # --- finding runs and what they made ------------------------------------------------------------------------------

    def runs_of(self, fingerprint: str) -> list[Run]:
        """Runs of the steps with this fingerprint, newest first."""
        return self._search(f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'")

    def committed(self, fingerprint: str) -> Artifact | None:
        """Record of the newest artifact made for `fingerprint`, or None."""
        for run in self.runs_of(fingerprint):
            if text := run.data.tags.get(ARTIFACT_TAG):
                return Artifact.from_json(text)
        return None

    def newest(self, step: str) -> Run | None:
        """The newest run of `step` that made an artifact, whatever its settings were; None without one."""
        runs = self._search(f"tags.`{STEP_TAG}` = '{step}'")
        return next((run for run in runs if ARTIFACT_TAG in run.data.tags), None)

    def made_by(self, run_id: str) -> Artifact:
        """The artifact that a step's run made; raises UnknownModel when there is no such run or it made none."""
        tags = self._run(run_id).data.tags
        if ARTIFACT_TAG not in tags:
            raise UnknownModel(
                f"MLflow run {run_id} must be a step's run with an artifact, but it has none: "
                "was the model registered by hand?"
            )
        return Artifact.from_json(tags[ARTIFACT_TAG])

    def record_gates(self, run_id: str, verdict: str) -> None:
        """Write the gates' verdict on an artifact into its run."""
        self.client.set_tag(run_id, GATES_TAG, verdict)

    def gates(self, run_id: str) -> str | None:
        """The verdict stored with a run: 'passed', 'failed: ...', or None."""
        return self.client.get_run(run_id).data.tags.get(GATES_TAG)

    def run_link(self, run_id: str) -> str:
        """Page of the run in the MLflow UI."""
        experiment = self._experiment_id or self.client.get_run(run_id).info.experiment_id
        return f"{self.server.ui_address}/#/experiments/{experiment}/runs/{run_id}"

    def ancestry(self, run_id: str) -> list[tuple[int, Run]]:
        """The run and all runs it was made from, depth first, each once, with its depth below `run_id`.

        Raises UnknownModel when one of them does not exist.
        """
        visited: set[str] = set()
        ancestors: list[tuple[int, Run]] = []

        def visit(current: str, depth: int) -> None:
            if current in visited:
                return
            visited.add(current)
            run = self._run(current)
            ancestors.append((depth, run))
            for link in json.loads(run.data.tags.get(INPUTS_TAG, "[]")):
                visit(link["run_id"], depth + 1)

        visit(run_id, 0)
        return ancestors

    def _run(self, run_id: str) -> Run:
        with self.server.looking_up(f"run {run_id}"):
            return self.client.get_run(run_id)

    def _search(self, query: str) -> list[Run]:
        if self._experiment_id is None:
            return []
        newest_first = ["attributes.start_time DESC"]
        return list(
            self.client.search_runs([self._experiment_id], query, ViewType.ACTIVE_ONLY, MAX_RUNS_FOUND, newest_first)
        )

"""MLflow: runs, metrics, the model registry, lineage. Alone knows MLflow.

One parent run a pipeline run, one child run a step. A step's run carries tags that tie it to the artifact store:

    vqvae2.step         tokenizer, codes, prior_top, ...
    vqvae2.fingerprint  what the step was asked to do
    vqvae2.artifact     the artifact's record (JSON), written when it is committed
    vqvae2.inputs       records of the artifacts it was made from (JSON)
    vqvae2.gates        passed | failed: <which, and by how much>
    vqvae2.git          revision of the code
    vqvae2.error        what the step died of, until it goes on
"""

import contextlib
import io
import json
import logging
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import TrackingError, UnknownModel

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException

from components.artifacts import Artifact

STEP_TAG, FINGERPRINT_TAG, ARTIFACT_TAG = "vqvae2.step", "vqvae2.fingerprint", "vqvae2.artifact"
INPUTS_TAG, GATES_TAG, GIT_TAG, PIPELINE_TAG = "vqvae2.inputs", "vqvae2.gates", "vqvae2.git", "vqvae2.pipeline"
ERROR_TAG = "vqvae2.error"
PARENT_TAG, DIGEST_TAG = "mlflow.parentRunId", "vqvae2.digest"
MAX_DATASET_TRIES = 3
_one_dataset_at_a_time = threading.Lock()
for _noisy in ("mlflow", "alembic", "mlflow.store.db.utils"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)


@dataclass(frozen=True)
class RegisteredModel:
    """One version in the registry."""

    name: str
    version: str
    uri: str
    run_id: str
    aliases: tuple[str, ...]


def git_revision() -> str:
    """Revision of this code: GIT_REVISION where it is set (container images), else git's, else 'unknown'."""
    if revision := os.environ.get("GIT_REVISION"):
        return revision
    command = ["git", "-C", str(Path(__file__).parents[1]), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


class RunJournal:
    """One MLflow run that a step writes to. Metrics told twice for one step are written once."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.run_id = client, run_id
        self._last: dict[str, int] = {}
        for key in client.get_run(run_id).data.metrics:
            self._last[key] = max(metric.step for metric in client.get_metric_history(run_id, key))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` at `step`, leaving out those already logged at this step or a later one."""
        new = {key: value for key, value in values.items() if self._last.get(key, -1) < step}
        now = int(time.time() * 1000)
        if new:
            self._client.log_batch(
                self.run_id, metrics=[Metric(key, float(value), now, step) for key, value in new.items()]
            )
            self._last |= dict.fromkeys(new, step)

    def parameters(self, values: Mapping[str, object]) -> None:
        """Log flat settings; values are cut at MLflow's 6,000 characters."""
        known = self._client.get_run(self.run_id).data.params
        new = [Param(key, str(value)[:6000]) for key, value in values.items() if key not in known]
        for start in range(0, len(new), 100):
            self._client.log_batch(self.run_id, params=new[start : start + 100])

    def tag(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        for key, value in values.items():
            self._client.set_tag(self.run_id, key, value)

    def picture(self, name: str, png: bytes, step: int | None = None) -> None:
        """A PNG under pictures/; with `step`, one of a series in MLflow's image view."""
        if step is None:
            self._file(f"pictures/{name}.png", png)
            return
        from PIL import Image

        with Image.open(io.BytesIO(png)) as image:
            self._client.log_image(self.run_id, image, key=name, step=step)

    def document(self, name: str, text: str) -> None:
        """A text file at the top of the run's artifacts."""
        self._file(name, text.encode())

    def _file(self, path: str, data: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / Path(path).name
            local.write_bytes(data)
            self._client.log_artifact(self.run_id, str(local), str(Path(path).parent) if "/" in path else None)

    def inputs(self, artifacts: Sequence[Artifact]) -> None:
        """Record what the run is made from: MLflow datasets with digests, and a tag to walk back along."""
        datasets = []
        for artifact in artifacts:
            source = json.dumps({"uri": artifact.uri, "fingerprint": artifact.fingerprint})
            dataset = Dataset(artifact.kind, artifact.digest[:36], "vqvae2", source)
            datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", artifact.kind)]))
        if datasets:
            self._log_datasets(datasets)
        links = [{"kind": a.kind, "digest": a.digest, "run_id": a.run_id, "uri": a.uri} for a in artifacts]
        self._client.set_tag(self.run_id, INPUTS_TAG, json.dumps(links))

    def _log_datasets(self, datasets: Sequence[DatasetInput]) -> None:
        """MLflow looks a dataset up and then inserts it: of two that do so at the same time, one fails."""
        for attempt in range(MAX_DATASET_TRIES):
            try:
                with _one_dataset_at_a_time:  # the steps side by side have the same inputs
                    return self._client.log_inputs(self.run_id, datasets=datasets)
            except MlflowException as error:  # another driver was first: now it is there
                if "unique constraint" not in str(error).lower() or attempt == MAX_DATASET_TRIES - 1:
                    raise

    def finish(self, artifact: Artifact) -> None:
        """The artifact is committed: the run is done and from now on stands for it."""
        self._client.set_tag(self.run_id, ARTIFACT_TAG, artifact.to_json())
        self._client.set_terminated(self.run_id, "FINISHED")

    def fail(self, reason: str) -> None:
        """The step died with an error; its run stays open to be taken up again."""
        self._client.set_tag(self.run_id, ERROR_TAG, reason[:2000])
        self._client.update_run(self.run_id, status="FAILED")


class Tracker:
    """The tracking store and registry of one pipeline."""

    def __init__(self, *, uri: str | None, name: str, state: str) -> None:
        """Connect; the experiment `name` is made when the first run of it is.

        Args:
            uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, or SQLite under `state`.
            name: experiment's name.
            state: local folder of the default database.

        Raises TrackingError when the server does not answer.
        """
        self.uri = uri or tracking_uri(state)
        self.name = name
        self._location: str | None = None
        if (database := sqlite_file(self.uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
            self._location = (Path(state).absolute() / "mlflow-artifacts").as_uri()
        check_reachable(self.uri)
        with self._reachable():
            self.client = MlflowClient(self.uri)
            experiment = self.client.get_experiment_by_name(name)
        self._experiment_id = experiment.experiment_id if experiment else None
        self._lock = threading.RLock()

    @property
    def experiment_id(self) -> str:
        """The experiment of this pipeline, made with its first run: looking around makes none."""
        with self._lock:
            if self._experiment_id is None:
                with self._reachable():
                    self._experiment_id = self._create_experiment()
            return self._experiment_id

    def _create_experiment(self) -> str:
        try:
            return self.client.create_experiment(self.name, artifact_location=self._location)
        except MlflowException:  # another driver was first
            experiment = self.client.get_experiment_by_name(self.name)
            if experiment is None:
                raise
            return experiment.experiment_id

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if isinstance(error, MlflowException) or type(error).__module__.split(".")[0] in {
                "sqlalchemy",
                "requests",
                "urllib3",
                "sqlite3",
            }:
                reason = without_password((str(error).strip() or type(error).__name__).splitlines()[0][:300])
                raise TrackingError(
                    f"the MLflow tracking store {without_password(self.uri)} does not answer: {reason}. "
                    "Start it, correct MLFLOW_TRACKING_URI, or unset it to use a local SQLite file"
                ) from error
            raise

    # --- runs ---------------------------------------------------------------------------------------------------------

    def parent(self, fingerprint: str, parameters: Mapping[str, object]) -> str:
        """Run id of the pipeline run for this config: the one that was interrupted, or a new one."""
        with self._lock:
            for run in self._search(f"tags.`{PIPELINE_TAG}` = '{fingerprint}'"):
                if run.info.status != "FINISHED":
                    self.client.update_run(run.info.run_id, status="RUNNING")
                    return run.info.run_id
            tags = {PIPELINE_TAG: fingerprint, GIT_TAG: git_revision()}
            run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{self.name} pipeline")
            RunJournal(self.client, run.info.run_id).parameters(parameters)
            return run.info.run_id

    def close_parent(self, run_id: str, succeeded: bool) -> None:
        """End a pipeline run; a failed one is taken up again by the next run of the same config."""
        self.client.update_run(run_id, status="FINISHED" if succeeded else "FAILED")
        if succeeded:
            self.client.set_terminated(run_id, "FINISHED")

    def journal(self, step: str, fingerprint: str, parent: str) -> RunJournal:
        """The unfinished run of this fingerprint, or a new one."""
        for run in self.runs_of(fingerprint):
            if ARTIFACT_TAG not in run.data.tags:
                self.client.update_run(run.info.run_id, status="RUNNING")
                if ERROR_TAG in run.data.tags:
                    self.client.delete_tag(run.info.run_id, ERROR_TAG)
                return RunJournal(self.client, run.info.run_id)
        tags = {STEP_TAG: step, FINGERPRINT_TAG: fingerprint, PARENT_TAG: parent, GIT_TAG: git_revision()}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=step)
        return RunJournal(self.client, run.info.run_id)

    def runs_of(self, fingerprint: str) -> list[Run]:
        """All runs of a fingerprint, newest first."""
        return self._search(f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'")

    def committed(self, fingerprint: str) -> Artifact | None:
        """Record of the newest artifact made for `fingerprint`, or None."""
        for run in self.runs_of(fingerprint):
            if text := run.data.tags.get(ARTIFACT_TAG):
                return Artifact.from_json(text)
        return None

    def remember_gates(self, run_id: str, verdict: str) -> None:
        """Write the gates' verdict on an artifact into its run."""
        self.client.set_tag(run_id, GATES_TAG, verdict)

    def gates(self, run_id: str) -> str | None:
        """The verdict remembered with a run: 'passed', 'failed: ...', or None."""
        return self.client.get_run(run_id).data.tags.get(GATES_TAG)

    def newest(self, step: str) -> Run | None:
        """The newest run of `step` that made an artifact, whatever its settings were."""
        return next(
            (run for run in self._search(f"tags.`{STEP_TAG}` = '{step}'") if ARTIFACT_TAG in run.data.tags), None
        )

    def made_by(self, run_id: str) -> Artifact:
        """The artifact that a step's run made; raises TrackingError when it made none."""
        with self._known(f"run {run_id}"):
            run = self.client.get_run(run_id)
        if ARTIFACT_TAG not in run.data.tags:
            raise UnknownModel(
                f"MLflow run {run_id} must be a step's that made an artifact, but it carries none: "
                "was the model registered by hand?"
            )
        return Artifact.from_json(run.data.tags[ARTIFACT_TAG])

    def _search(self, query: str) -> list[Run]:
        if self._experiment_id is None:
            return []
        return list(
            self.client.search_runs(
                [self._experiment_id], query, ViewType.ACTIVE_ONLY, 100, ["attributes.start_time DESC"]
            )
        )

    def run_link(self, run_id: str) -> str:
        """Where a person finds the run in the MLflow UI."""
        base = _without_user(self.uri).rstrip("/") if self.uri.startswith("http") else "http://127.0.0.1:5000"
        experiment = self._experiment_id or self.client.get_run(run_id).info.experiment_id
        return f"{base}/#/experiments/{experiment}/runs/{run_id}"

    # --- registry -----------------------------------------------------------------------------------------------------

    def register(
        self,
        *,
        name: str,
        run_id: str,
        served: Path,
        folders: Mapping[str, Path],
        example: Any,
        signature_params: Mapping[str, Any],
        requirements: Sequence[str],
        digest: str,
    ) -> RegisteredModel:
        """Register a model from the code file `served` and the artifact `folders`, alias `challenger`; no pickle.

        A version with the same `digest` is not registered again.
        """
        if (known := self.registered(name, digest)) is not None:
            return known
        package = Path(__file__).parents[1]
        with (
            self._lock,
            _default_store(self.uri),
            mlflow.start_run(run_id=run_id),
            _quiet(),
            tempfile.TemporaryDirectory() as code,
        ):
            _copy_code(package, Path(code) / package.name)
            info = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(served),
                artifacts={key: str(folder) for key, folder in folders.items()},
                code_paths=[str(Path(code) / package.name)],
                input_example=(example, dict(signature_params)) if signature_params else example,
                pip_requirements=list(requirements),
                registered_model_name=name,
            )
        version = str(info.registered_model_version)
        self.client.set_model_version_tag(name, version, DIGEST_TAG, digest)
        self.client.set_registered_model_alias(name, "challenger", version)
        return self._version(name, version)

    def registered(self, name: str, digest: str) -> RegisteredModel | None:
        """The version of model `name` made from the artifact with this digest, or None."""
        for version in self.client.search_model_versions(f"name = '{name}'"):
            if version.tags.get(DIGEST_TAG) == digest:
                return self._version(name, version.version)
        return None

    def versions(self, name: str) -> list[RegisteredModel]:
        """All versions of model `name`, newest first."""
        found = self.client.search_model_versions(f"name = '{name}'")
        return [self._version(name, one.version) for one in sorted(found, key=lambda one: -int(one.version))]

    def promote(self, model: RegisteredModel) -> None:
        """Give the version the alias `champion`."""
        if "champion" not in model.aliases:
            self.client.set_registered_model_alias(model.name, "champion", model.version)

    def model(self, uri: str) -> RegisteredModel:
        """What `models:/name/version`, `models:/name@alias` or `name` (its newest version) stands for."""
        text = uri.removeprefix("models:/")
        with self._known(uri):
            if "@" in text:
                name, alias = text.split("@", 1)
                return self._version(name, self.client.get_model_version_by_alias(name, alias).version)
            if "/" in text:
                name, number = text.split("/", 1)
                return self._version(name, number)
            versions = self.client.search_model_versions(f"name = '{text}'")
            if not versions:
                raise UnknownModel(
                    f"no model '{text}' is registered at {without_password(self.uri)}: see `python -m pipeline status`"
                )
            return self._version(text, str(max(int(version.version) for version in versions)))

    def model_parts(self, model: RegisteredModel, target: Path) -> dict[str, Path]:
        """Download the model's files below `target`; returns the `folders` it was registered with."""
        local = self._downloaded(model, target)
        parts = mlflow.models.Model.load(local).flavors["python_function"]["artifacts"]
        return {name: local / part["path"] for name, part in parts.items()}

    def model_program(self, uri: str) -> bytes:
        """The one exported program (.pt2) among the files of a registered model of any kind."""
        with tempfile.TemporaryDirectory() as folder:
            found = sorted(self._downloaded(self.model(uri), Path(folder)).rglob("*.pt2"))
            if len(found) != 1:
                names = [path.name for path in found]
                raise ValueError(f"{uri} must hold one .pt2 file, a torch.export program, got {names}: register it so")
            return found[0].read_bytes()

    def _downloaded(self, model: RegisteredModel, target: Path) -> Path:
        with self._known(model.uri), _default_store(self.uri), _quiet():
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=model.uri, dst_path=str(target)))

    def _version(self, name: str, version: str) -> RegisteredModel:
        found = self.client.get_model_version(name, version)
        return RegisteredModel(
            name, str(version), f"models:/{name}/{version}", found.run_id or "", tuple(found.aliases)
        )

    @contextlib.contextmanager
    def _known(self, what: str) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            reason = without_password(str(error).splitlines()[0])
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
                raise UnknownModel(f"MLflow at {without_password(self.uri)} has no {what}: {reason}") from error
            raise TrackingError(f"MLflow at {without_password(self.uri)} cannot look up {what}: {reason}") from error

    # --- lineage ------------------------------------------------------------------------------------------------------

    def ancestry(self, run_id: str) -> list[tuple[int, Run]]:
        """The run and all it was made from, depth first, with the depth of each; a run shows up once."""
        seen: set[str] = set()
        found: list[tuple[int, Run]] = []

        def walk(current: str, depth: int) -> None:
            if current in seen:
                return
            seen.add(current)
            with self._known(f"run {current}"):
                run = self.client.get_run(current)
            found.append((depth, run))
            for link in json.loads(run.data.tags.get(INPUTS_TAG, "[]")):
                walk(link["run_id"], depth + 1)

        walk(run_id, 0)
        return found


def _copy_code(package: Path, target: Path) -> None:
    import shutil

    shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


@contextlib.contextmanager
def _default_store(uri: str) -> Iterator[None]:
    """MLflow logs and finds models in the one store that a process has, and keeps its name in the environment: not
    beyond that, or the next pipeline of this process would go there too."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # forgets it
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def tracking_uri(state: str) -> str:
    """MLFLOW_TRACKING_URI, or SQLite under the local folder `state`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(state).absolute()}/mlflow.db"


def has_been_used(uri: str) -> bool:
    """Whether `uri` has been used before, as far as one can tell without making anything: SQLite's file is made by
    the first run."""
    database = sqlite_file(uri)
    return database is None or database.exists()


def without_password(text: str) -> str:
    """`text` with the user and password of every URI in it hidden."""
    return re.sub(r"(?<=://)[^\s/?#]*@", "***@", text)


def _without_user(uri: str) -> str:
    return re.sub(r"(?<=://)[^\s/?#]*@", "", uri)


def sqlite_file(uri: str) -> Path | None:
    """The database file that `uri` names; None for any other store."""
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow prints progress bars and hints while it logs a model: a person needs none of them."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def check_reachable(uri: str, seconds: float = 5.0) -> None:
    """Raise TrackingError at once when `uri` is a server or database that does not answer: MLflow tries for minutes."""
    try:
        if uri.startswith("http"):
            _ask_server(uri, seconds)
        elif uri.startswith(("sqlite", "postgresql", "mysql")):
            _ask_database(uri, seconds)
    except _NoAnswer as error:
        reason = without_password((str(error.__cause__) or type(error.__cause__).__name__).splitlines()[0])
        raise TrackingError(
            f"the MLflow tracking store {without_password(uri)} does not answer: {reason}. "
            "Start it, correct MLFLOW_TRACKING_URI, or unset it to use a local SQLite file"
        ) from error.__cause__


class _NoAnswer(Exception):
    """Raised from what a server or a database said, or from nothing being there to say it."""


def _ask_server(uri: str, seconds: float) -> None:
    import http.client
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(f"{_without_user(uri).rstrip('/')}/health", timeout=seconds).read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code < 500:
            return  # it answers; whether it lets us in is told by the first question that matters
        raise _NoAnswer from error


def _ask_database(uri: str, seconds: float) -> None:
    import sqlalchemy

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return  # the first run makes it
    name = "connect_timeout" if file is None else "timeout"
    try:
        engine = sqlalchemy.create_engine(
            uri, connect_args={name: max(1, round(seconds))}, poolclass=sqlalchemy.pool.NullPool
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT 1" if file is None else "PRAGMA schema_version"))
    except ImportError as error:
        raise TrackingError(
            f"{without_password(uri)} needs a database driver that is not installed ({error}): "
            "name the one that is, as in postgresql+psycopg2://"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        raise _NoAnswer from error

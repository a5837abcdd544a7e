"""MLflow runs: one parent run per pipeline run, one child run per step. tags.py lists what they carry."""

import contextlib
import functools
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from components.artifacts import Artifact
from components.errors import TrackingError, UnknownModel
from components.tracking.drivers import DriverMark
from components.tracking.journal import Links, RunJournal
from components.tracking.moved import files_location, follow_moved_state
from components.tracking.registry import ModelRegistry
from components.tracking.sender import LeaseCheck, Sender, spool_folder
from components.tracking.server import TrackingServer, sqlite_file, tracking_uri
from components.tracking.tags import (
    ARTIFACT_TAG,
    DRIVER_TAG,
    ERROR_TAG,
    FINGERPRINT_TAG,
    GATES_TAG,
    GIT_TAG,
    INPUTS_TAG,
    PARENT_TAG,
    PIPELINE_TAG,
    STEP_TAG,
    git_revision,
)

MAX_RUNS_FOUND = 100
"""Largest number of runs that a search returns."""
CLOSE_SECONDS = 5.0
"""How long the end of a pipeline run waits for MLflow; what is not sent then, the next run sends."""

STARTING = "starting"
"""A driver's mark in a pipeline run that it has created and not seen yet."""

P = ParamSpec("P")
T = TypeVar("T")


def patient(
    method: "Callable[Concatenate[Tracker, P], T]",
) -> "Callable[Concatenate[Tracker, P], T]":
    """A Tracker's method that waits for MLflow by being called again: it finds or creates, so nothing is doubled."""

    @functools.wraps(method)
    def call(self: "Tracker", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.server.patiently(lambda: method(self, *args, **kwargs))

    return call


class Tracker:
    """The experiment of one pipeline, and the model registry beside it."""

    def __init__(
        self,
        *,
        uri: str | None,
        name: str,
        state: str,
        patience: float = 0.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Connect; the experiment `name` is created with its first run.

        Args:
            uri: MLflow tracking URI; None takes MLFLOW_TRACKING_URI, or SQLite under `state`.
            name: experiment's name.
            state: local folder of the default database, of the files of runs in any SQLite database, and of figures
                that are not sent yet.
            patience: seconds to wait for a server that answered here and later does not.
            say: takes lines for a person about that.

        Raises TrackingAway when the server does not answer, DeletedRecord when the experiment was deleted.
        """
        uri = uri or tracking_uri(state)
        unsent = spool_folder(state, uri)
        self.server = TrackingServer(uri, patience, say, kept=str(unsent))
        self.registry = ModelRegistry(self.server)
        self.name = name
        self._sender = Sender(self.server, unsent, say)
        self._driver = uuid.uuid4().hex[:12]
        self._marks: dict[str, DriverMark] = {}  # by pipeline run
        self._run_ids: dict[str, str] = {}  # of steps and pipelines, by fingerprint
        is_sqlite = sqlite_file(uri) is not None
        self._artifact_location = files_location(state) if is_sqlite else None
        with self.server.translate_errors():
            follow_moved_state(uri, state)
            self._experiment_id = self._find_experiment()

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
                self._experiment_id = self._find_experiment() or self._create_experiment()
            return self._experiment_id

    def _find_experiment(self) -> str | None:
        experiment = self.client.get_experiment_by_name(self.name)
        if experiment is not None and experiment.lifecycle_stage == "deleted":
            raise self.server.deleted("experiment", experiment.experiment_id, f"'{self.name}'")
        return experiment.experiment_id if experiment else None

    def _create_experiment(self) -> str:
        try:
            return self.client.create_experiment(self.name, artifact_location=self._artifact_location)
        except MlflowException:  # another process may have created it meanwhile
            if (experiment := self._find_experiment()) is None:
                raise
            return experiment

    # --- starting and ending runs -------------------------------------------------------------------------------------

    def pipeline_run(self, fingerprint: str, parameters: Mapping[str, object]) -> str:
        """Id of the parent run for the config with this fingerprint: the unfinished one, or a new one.

        Drivers of the same config at the same time share it; the last one to leave ends it.
        """
        self._send_what_was_left(fingerprint)
        run_id = self._join_pipeline_run(fingerprint)
        self._run_ids[fingerprint] = run_id
        RunJournal(self._sender, run_id, {}, self._end_step).parameters(parameters)
        return run_id

    def _send_what_was_left(self, fingerprint: str) -> None:
        """Send what ended processes could not, and what this one has for a run that it continues.

        The end or the failure of a run must not arrive after it was continued.
        """
        self._sender.adopt()
        self._sender.flush_adopted()
        if (run_id := self._run_ids.get(fingerprint)) is not None:
            self._sender.flush(run_id)

    @patient
    def _join_pipeline_run(self, fingerprint: str) -> str:
        with self.server.lock:
            runs = self._search(f"tags.`{PIPELINE_TAG}` = '{fingerprint}'")
            run = next((run for run in runs if run.info.status != "FINISHED"), None)
            if run is None:
                tags = {PIPELINE_TAG: fingerprint, GIT_TAG: git_revision(), DRIVER_TAG + self._driver: STARTING}
                run = self.client.create_run(self.experiment_id, tags=tags, run_name=f"{self.name} pipeline")
            else:
                self.client.update_run(run.info.run_id, status="RUNNING")
            run_id = run.info.run_id
            if run_id not in self._marks:
                self._marks[run_id] = DriverMark(self.client, run_id, self._driver)
            return run_id

    def close_pipeline_run(self, run_id: str, succeeded: bool) -> None:
        """End a parent run unless other drivers work in it; a failed one is continued by the config's next run."""
        if (mark := self._marks.pop(run_id, None)) is not None:
            mark.leave()
            if not self.server.outage.lasts:
                with contextlib.suppress(Exception):  # at worst runs stay open
                    self._delete_unanswered()
                    if succeeded:
                        mark.remove_dead()
        self._sender.put(run_id, "end", {"driver": self._driver, "succeeded": succeeded, "time": time.time()})
        with contextlib.suppress(TrackingError):
            self._sender.flush(run_id, CLOSE_SECONDS)

    def _delete_unanswered(self) -> None:
        """Delete runs that were created though the answer to that did not arrive: their first mark never changed."""
        for run in self._search(f"tags.`{DRIVER_TAG}{self._driver}` = '{STARTING}'"):
            self.client.delete_run(run.info.run_id)

    def close(self) -> None:
        """Send what can be sent soon and leave the rest to the next run; whoever waits for MLflow stops waiting."""
        for mark in self._marks.values():
            mark.leave()
        self._sender.close(CLOSE_SECONDS)

    def run_journal(
        self, step: str, fingerprint: str, parent: str, check_lease: LeaseCheck = lambda: None
    ) -> RunJournal:
        """Journal of the unfinished run of this fingerprint, or of a new one below the run `parent`.

        `check_lease` raises LeaseLost once another driver works on the step: from then on nothing more is sent.
        """
        self._send_what_was_left(fingerprint)
        run_id, logged = self._join_step_run(step, fingerprint, parent)
        self._sender.watch(run_id, check_lease)
        self._run_ids[fingerprint] = run_id
        return RunJournal(self._sender, run_id, logged, self._end_step)

    def abandon(self, fingerprint: str) -> None:
        """Write nothing more about a step: another driver has taken it over and continues its run."""
        if (run_id := self._run_ids.get(fingerprint)) is not None:
            self._sender.abandon(run_id)

    @patient
    def _join_step_run(self, step: str, fingerprint: str, parent: str) -> tuple[str, dict[str, int]]:
        """The run's id, and the newest update of each of its metrics."""
        for run in self.runs_of(fingerprint):
            if ARTIFACT_TAG not in run.data.tags:
                run_id = run.info.run_id
                self.client.update_run(run_id, status="RUNNING")
                if ERROR_TAG in run.data.tags:
                    self.client.delete_tag(run_id, ERROR_TAG)
                history = {key: self.client.get_metric_history(run_id, key) for key in run.data.metrics}
                return run_id, {key: max(metric.step for metric in metrics) for key, metrics in history.items()}
        tags = {STEP_TAG: step, FINGERPRINT_TAG: fingerprint, PARENT_TAG: parent, GIT_TAG: git_revision()}
        return self.client.create_run(self.experiment_id, tags=tags, run_name=step).info.run_id, {}

    @patient
    def _end_step(self, run_id: str, artifact: Artifact, links: Links) -> None:
        self.client.set_tag(run_id, INPUTS_TAG, json.dumps(links))  # part of the record, should the entry be lost
        self.client.set_tag(run_id, ARTIFACT_TAG, artifact.to_json())
        self.client.set_terminated(run_id, "FINISHED")
        for run in self.runs_of(artifact.fingerprint):
            # A run that was created though the answer to that did not arrive: nobody ever wrote into it.
            if ARTIFACT_TAG not in run.data.tags and not run.data.params and not run.data.metrics:
                self.client.delete_run(run.info.run_id)

    # --- finding runs and what they made ------------------------------------------------------------------------------

    @patient
    def runs_of(self, fingerprint: str) -> list[Run]:
        """Runs of the steps with this fingerprint, newest first."""
        return self._search(f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'")

    def committed(self, fingerprint: str) -> Artifact | None:
        """Record of the newest artifact made for `fingerprint`, or None."""
        for run in self.runs_of(fingerprint):
            if text := run.data.tags.get(ARTIFACT_TAG):
                return Artifact.from_json(text)
        return None

    @patient
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

    @patient
    def record_gates(self, run_id: str, verdict: str) -> None:
        """Write the gates' verdict on an artifact into its run."""
        self.client.set_tag(run_id, GATES_TAG, verdict)

    @patient
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
            self._experiment_id = self._find_experiment()  # another process may have created it meanwhile
        if self._experiment_id is None:
            return []
        newest_first = ["attributes.start_time DESC"]
        return list(
            self.client.search_runs([self._experiment_id], query, ViewType.ACTIVE_ONLY, MAX_RUNS_FOUND, newest_first)
        )

"""The MLflow tracking server: which one, whether it answers, waiting for it, and how its errors are reported."""

import contextlib
import http.client
import io
import logging
import math
import os
import re
import shlex
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.errors import DeletedRecord, PipelineError, TrackingAway, TrackingError, UnknownModel
from components.progress import format_duration
from components.stopping import stop_requested
from components.tracking.failures import passes

LOCAL_UI = "http://127.0.0.1:5000"
"""Address at which `mlflow ui` serves a database by default."""
MAX_REASON_CHARACTERS = 300
"""Characters of a reason that an error message quotes: some servers answer with a whole page."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the next try of a request that was not answered: doubled from the first to the longest."""
SILENT_SECONDS = 3.0
"""Shortest time without an answer that is worth a line: a database that was locked for a moment is not."""

T = TypeVar("T")

_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#]*@")
_CONNECTION_PACKAGES = {"sqlalchemy", "requests", "urllib3", "sqlite3"}
"""Packages whose errors MLflow passes on when a server or a database fails."""
_MISSING_CODES = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}
"""MLflow's error codes for an id, name, version or alias that does not exist."""
_NOT_ACTIVE = re.compile(r"The (run|experiment) (\w+) must be in the 'active' state")
"""What MLflow answers to a request about something deleted."""
_KNOWN_REASON = re.compile(r"[Cc]onnection refused|timed out|\d+ error responses|database is locked")
"""What a person needs of a long error."""
_NO_SUCH_RUN = re.compile(r"Run with id=\w+ not found")
"""What it answers once the deleted are removed for good (`mlflow gc`)."""

for _logger in ("mlflow", "alembic"):
    logging.getLogger(_logger).setLevel(logging.ERROR)  # database migrations log every step
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs with a traceback what it raises, too


class TrackingServer:
    """The connection to one tracking store, which is also the model registry."""

    def __init__(
        self, uri: str, patience: float = 0.0, say: Callable[[str], None] = lambda line: None, kept: str = ""
    ) -> None:
        """Connect; for SQLite, make the folder of the database file.

        Args:
            uri: of the tracking store.
            patience: seconds to wait for a store that answered at first and does not any more.
            say: takes a line for a person when the store stops to answer, and when it answers again.
            kept: where figures are meanwhile, for that line.

        Raises TrackingAway when the server or database does not answer.
        """
        self.uri, self.patience = uri, patience
        self.lock = threading.RLock()
        """Held by the thread that creates the experiment or a pipeline run, or registers a model."""
        self.closing = threading.Event()
        """Set when nobody may wait for the server any more."""
        self.outage = Outage(uri, say, kept)
        if (database := sqlite_file(uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        check_reachable(uri)
        with self.translate_errors():
            self.client = MlflowClient(uri)

    def patiently(self, request: Callable[[], T]) -> T:
        """The result of `request`, repeated while the store does not answer; it must be safe to repeat.

        Raises TrackingError after `patience` seconds without an answer, and at once for what does not pass.
        """
        started, pause = time.monotonic(), FIRST_PAUSE
        while True:
            asked = time.monotonic()
            try:
                result = request()
            except Exception as error:
                if not passes(error):
                    if (failure := self.failure(error)) is error:
                        raise
                    raise failure from error
                self.outage.noticed(error, asked)
                if time.monotonic() - started >= self.patience or stop_requested() or self.closing.wait(pause):
                    raise TrackingError(_no_answer(self.uri, error)) from error
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self.outage.over(asked)
                return result

    def failure(self, error: Exception) -> Exception:
        """What to raise for an error that does not pass: one that names the cure where it is one of MLflow's."""
        if isinstance(error, PipelineError) or not isinstance(error, MlflowException):
            return error
        if (gone := _NOT_ACTIVE.search(str(error))) is not None:
            return self._deleted_experiment_of(gone[2]) or self.deleted(gone[1], gone[2])
        if _NO_SUCH_RUN.search(str(error)):
            return DeletedRecord(f"{reason_of(error)}: it was removed from MLflow; run again, which makes a new one")
        return TrackingError(f"MLflow at {without_password(self.uri)} cannot do what was asked: {reason_of(error)}")

    def _deleted_experiment_of(self, run_id: str) -> DeletedRecord | None:
        """The error about the deleted experiment of a run; None when the run alone was deleted."""
        with contextlib.suppress(Exception):
            experiment = self.client.get_experiment(self.client.get_run(run_id).info.experiment_id)
            if experiment.lifecycle_stage == "deleted":
                return self.deleted("experiment", experiment.experiment_id, f"'{experiment.name}'")
        return None

    def deleted(self, kind: str, identity: str, name: str = "") -> DeletedRecord:
        """The error about a deleted `run` or `experiment`, with the command that restores it."""
        store = shlex.quote(without_password(self.uri))
        command = f"MLFLOW_TRACKING_URI={store} mlflow {kind}s restore --{kind}-id {identity}"
        other = "choose another `name` in the config" if kind == "experiment" else "run again, which makes a new one"
        return DeletedRecord(
            f"the MLflow {kind} {name or identity} was deleted: restore it with `{command}`, or {other}"
        )

    @property
    def ui_address(self) -> str:
        """Address of the UI: the server's without user and password, or LOCAL_UI for a database."""
        return _CREDENTIALS.sub("", self.uri).rstrip("/") if self.uri.startswith("http") else LOCAL_UI

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise TrackingAway for every error of MLflow, its HTTP client or its database in the body."""
        try:
            yield
        except Exception as error:
            if isinstance(error, MlflowException) or type(error).__module__.split(".")[0] in _CONNECTION_PACKAGES:
                raise TrackingAway(_no_answer(self.uri, error)) from error
            raise

    @contextlib.contextmanager
    def looking_up(self, what: str) -> Iterator[None]:
        """Raise UnknownModel when the body asks MLflow for something that does not exist; TrackingError for the rest.

        `what` names it in the message.
        """
        try:
            yield
        except MlflowException as error:
            address, reason = without_password(self.uri), without_password(str(error).splitlines()[0])
            if error.error_code in _MISSING_CODES:
                raise UnknownModel(f"MLflow at {address} has no {what}: {reason}") from error
            raise TrackingError(f"MLflow at {address} cannot look up {what}: {reason}") from error


class Outage:
    """Whether a store answers at the moment; says one line when it stops to, and one when it answers again."""

    def __init__(self, uri: str, say: Callable[[str], None], kept: str) -> None:
        self._uri, self._say, self._kept = uri, say, kept
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said = False
        self._answered_at = self._failed_at = -math.inf

    @property
    def lasts(self) -> bool:
        """Whether the last request got no answer."""
        return self._since is not None

    def noticed(self, error: Exception, asked: float) -> None:
        """A request that was sent at `asked` (clock time of this process) got no answer."""
        with self._lock:
            if asked < self._answered_at:
                return  # another request was answered since
            self._since, self._failed_at = self._since or asked, time.monotonic()
            if self._said or time.monotonic() - self._since < SILENT_SECONDS:
                return
            self._said = True
        kept = f"; figures are kept in {self._kept} and sent when it does" if self._kept else ""
        known = _KNOWN_REASON.search(str(error))
        reason = known[0] if known else reason_of(error)
        self._say(f"MLflow at {without_password(self._uri)} does not answer ({reason}){kept}")

    def over(self, asked: float) -> None:
        """A request that was sent at `asked` was answered."""
        with self._lock:
            if asked < self._failed_at:
                return  # another request failed since
            self._answered_at = time.monotonic()
            since, said, self._since, self._said = self._since, self._said, None, False
        if said and since is not None:
            self._say(f"MLflow answers again, after {format_duration(time.monotonic() - since)}")


# --- addresses --------------------------------------------------------------------------------------------------------


def tracking_uri(state: str) -> str:
    """MLFLOW_TRACKING_URI, or SQLite under the local folder `state`."""
    database = str(Path(state).absolute() / "mlflow.db")
    # In the URI of a database, % and ? have a meaning; the other characters of a path have none.
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database.replace('%', '%25').replace('?', '%3F')}"


def sqlite_file(uri: str) -> Path | None:
    """The database file that `uri` names; None for any other store."""
    return Path(unquote(uri.removeprefix("sqlite:///").split("?")[0])) if uri.startswith("sqlite:///") else None


def has_been_used(uri: str) -> bool:
    """False when `uri` is an SQLite file that does not exist yet: the first run makes it. True for any other store."""
    database = sqlite_file(uri)
    return database is None or database.exists()


def without_password(text: str) -> str:
    """`text` with the user and password of every URI in it replaced by ***."""
    return _CREDENTIALS.sub("***@", text)


def reason_of(error: BaseException) -> str:
    """The first line of an error, short and without passwords."""
    return without_password((str(error).strip() or type(error).__name__).splitlines()[0])[:MAX_REASON_CHARACTERS]


# --- whether it answers -----------------------------------------------------------------------------------------------


def check_reachable(uri: str, seconds: float = 5.0) -> None:
    """Raise TrackingAway when the server or database at `uri` does not answer within `seconds`.

    MLflow itself would try for minutes. Stores of other kinds (a folder) are not checked.
    """
    if uri.startswith("http"):
        _check_server(uri, seconds)
    elif uri.startswith(("sqlite", "postgresql", "mysql")):
        _check_database(uri, seconds)


def _check_server(uri: str, seconds: float) -> None:
    try:
        # Without credentials: MLflow's health page needs none.
        urllib.request.urlopen(f"{_CREDENTIALS.sub('', uri).rstrip('/')}/health", timeout=seconds).read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code < 500:
            return  # it answers; the first real request shows whether it accepts the credentials
        raise TrackingAway(_no_answer(uri, error)) from error


def _check_database(uri: str, seconds: float) -> None:
    import sqlalchemy

    file = sqlite_file(uri)
    if file is not None and not file.exists():
        return  # the first run makes it
    timeout = "connect_timeout" if file is None else "timeout"
    # SQLite answers "SELECT 1" without reading its file, so it would not notice a file that is not a database.
    query = "SELECT 1" if file is None else "PRAGMA schema_version"
    try:
        engine = sqlalchemy.create_engine(
            uri, connect_args={timeout: max(1, round(seconds))}, poolclass=sqlalchemy.pool.NullPool
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(query))
    except ImportError as error:
        raise TrackingError(
            f"{without_password(uri)} needs a database driver that is not installed ({error}): "
            "name an installed one, as in postgresql+psycopg2://"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        raise TrackingAway(_no_answer(uri, error)) from error


def _no_answer(uri: str, cause: Exception) -> str:
    return (
        f"the MLflow tracking store {without_password(uri)} does not answer: {reason_of(cause)}. "
        "Start it, correct MLFLOW_TRACKING_URI, or unset it to use a local SQLite file"
    )


# --- MLflow's state in this process -----------------------------------------------------------------------------------


@contextlib.contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Make `uri` the store that MLflow's module-level functions use while the body runs.

    MLflow has one such store per process and writes it into MLFLOW_TRACKING_URI: both are restored afterwards, so that
    the next pipeline of this process does not use it by mistake.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # resets it
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


@contextlib.contextmanager
def without_mlflow_output() -> Iterator[None]:
    """Hide the progress bars and hints that MLflow prints while it logs or downloads a model."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield

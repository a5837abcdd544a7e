"""The MLflow tracking server: which one, whether it answers, and how its errors are reported."""

import contextlib
import http.client
import io
import logging
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.errors import TrackingError, UnknownModel

LOCAL_UI = "http://127.0.0.1:5000"
"""Address at which `mlflow ui` serves a database by default."""
MAX_REASON_CHARACTERS = 300
"""Characters of a reason that an error message quotes: some servers answer with a whole page."""

_CREDENTIALS = re.compile(r"(?<=://)[^\s/?#]*@")
_CONNECTION_PACKAGES = {"sqlalchemy", "requests", "urllib3", "sqlite3"}
"""Packages whose errors MLflow passes on when a server or a database fails."""
_MISSING_CODES = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}
"""MLflow's error codes for an id, name, version or alias that does not exist."""

for _logger in ("mlflow", "alembic", "mlflow.store.db.utils"):
    logging.getLogger(_logger).setLevel(logging.ERROR)  # database migrations log every step


class TrackingServer:
    """The connection to one tracking store, which is also the model registry."""

    def __init__(self, uri: str) -> None:
        """Connect; for SQLite, make the folder of the database file.

        Raises TrackingError when the server or database does not answer.
        """
        self.uri = uri
        self.lock = threading.RLock()
        """Held by the thread that creates the experiment or a pipeline run, or registers a model."""
        if (database := sqlite_file(uri)) is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        check_reachable(uri)
        with self.translate_errors():
            self.client = MlflowClient(uri)

    @property
    def ui_address(self) -> str:
        """Address of the UI: the server's without user and password, or LOCAL_UI for a database."""
        return _CREDENTIALS.sub("", self.uri).rstrip("/") if self.uri.startswith("http") else LOCAL_UI

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise TrackingError for every error of MLflow, its HTTP client or its database in the body."""
        try:
            yield
        except Exception as error:
            if isinstance(error, MlflowException) or type(error).__module__.split(".")[0] in _CONNECTION_PACKAGES:
                raise _unreachable(self.uri, error) from error
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


# --- whether it answers -----------------------------------------------------------------------------------------------


def check_reachable(uri: str, seconds: float = 5.0) -> None:
    """Raise TrackingError when the server or database at `uri` does not answer within `seconds`.

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
        raise _unreachable(uri, error) from error


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
        raise _unreachable(uri, error) from error


def _unreachable(uri: str, cause: Exception) -> TrackingError:
    reason = without_password((str(cause).strip() or type(cause).__name__).splitlines()[0])[:MAX_REASON_CHARACTERS]
    return TrackingError(
        f"the MLflow tracking store {without_password(uri)} does not answer: {reason}. "
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

"""MLflow's errors by kind: those that pass when one waits, and those that only other credentials cure."""

import re

from mlflow.exceptions import MlflowException

_PASSING_CODES = {
    "INTERNAL_ERROR",  # also what MLflow's HTTP client raises for refused connections, timeouts, 429 and 5xx
    "TEMPORARILY_UNAVAILABLE",  # a database that is locked or does not answer
    "DEADLINE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "CANCELLED",
    "ABORTED",
}
_REFUSING_CODES = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_PASSING_CLASSES = {
    "OperationalError",  # SQLAlchemy, sqlite3 and psycopg2: a locked database, a closed connection
    "ConnectionError",  # Python and requests
    "TimeoutError",
    "Timeout",  # requests
    "EndpointConnectionError",  # botocore, for the files of runs
    "ConnectionClosedError",
    "HTTPClientError",
}
"""By name, because not all of these packages are installed everywhere."""
_COLLISION = re.compile(r"unique constraint", re.IGNORECASE)
"""Two processes logged the same dataset at the same time: the next try finds it."""
_NEVER_PASSING = re.compile(r"readonly database|no such (table|column)|unable to open database", re.IGNORECASE)


def passes(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: no answer, an answer 5xx or 429, a locked database."""
    causes = _causes(error)
    return any(map(_passes_alone, causes)) and not any(_NEVER_PASSING.search(str(cause)) for cause in causes)


def refuses(error: BaseException) -> bool:
    """Whether MLflow refuses the caller: waiting does not help, other credentials do."""
    return any(isinstance(cause, MlflowException) and cause.error_code in _REFUSING_CODES for cause in _causes(error))


def _passes_alone(error: BaseException) -> bool:
    if isinstance(error, MlflowException):
        return error.error_code in _PASSING_CODES or bool(_COLLISION.search(str(error)))
    by_class = any(kind.__name__ in _PASSING_CLASSES for kind in type(error).__mro__)
    return by_class or _object_store_status(error) == 429 or _object_store_status(error) >= 500


def _object_store_status(error: BaseException) -> int:
    """The HTTP status in an error of botocore; 0 for other errors."""
    response = getattr(error, "response", None)
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(response, dict) else 0


def _causes(error: BaseException) -> list[BaseException]:
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and cause not in causes:
        causes.append(cause)
    return causes

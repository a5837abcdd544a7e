"""Transient errors are retried; permanent ones, absence among them, are raised at once."""

import errno

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from components.store import retries
from components.store.retries import with_retries

TRANSIENT = [
    OSError(errno.EBUSY, "SlowDown"),
    ReadTimeoutError(endpoint_url="u"),
    ConnectionClosedError(endpoint_url="u"),
]
PERMANENT = [FileNotFoundError("gone"), PermissionError("denied"), EndpointConnectionError(endpoint_url="u")]


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", waited.append)
    return waited


def failing(error: Exception, times: int):
    calls = []

    def operation() -> int:
        calls.append(error)
        if len(calls) <= times:
            raise error
        return len(calls)

    return operation


@pytest.mark.parametrize("error", TRANSIENT)
def test_transient_errors_are_retried_with_growing_pauses(error, pauses):
    assert with_retries(failing(error, 3)) == 4
    assert len(pauses) == 3 and pauses[2] > pauses[0]


@pytest.mark.parametrize("error", TRANSIENT)
def test_a_transient_error_that_stays_is_raised(error, pauses):
    with pytest.raises(type(error)):
        with_retries(failing(error, 99))
    assert len(pauses) == len(retries.RETRY_PAUSES)


@pytest.mark.parametrize("error", PERMANENT)
def test_permanent_errors_are_raised_at_once(error, pauses):
    with pytest.raises(type(error)):
        with_retries(failing(error, 1))
    assert pauses == []

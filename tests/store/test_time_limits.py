"""A store that accepts and never answers: every call ends with an error, and the process with it."""

import threading
import time

import pytest

from components.errors import StorageError
from components.store import bounded_s3, lease, objects, retries
from components.store.lease import Lease, heartbeat
from components.store.retries import time_limit
from tests.store.silent_server import silent_server


@pytest.fixture
def silent(monkeypatch):
    """Root of a store that never answers."""
    with silent_server() as url:
        for name, value in {"ENDPOINT_URL": url, "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        yield "s3://bucket/root"


@pytest.mark.parametrize(
    "call",
    [
        lambda uri: objects.write_bytes(uri, b"data"),
        lambda uri: objects.create_bytes(uri, b"data"),
        objects.read_bytes,
        objects.object_sizes,
        objects.list_objects,
        objects.delete,
    ],
)
def test_each_call_ends_with_an_error(silent, monkeypatch, call):
    monkeypatch.setattr(bounded_s3, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(retries, "RETRY_PAUSES", (0.01,))
    with pytest.raises(StorageError, match=r"cannot access s3://bucket/root/x.*AWS_ENDPOINT_URL"):
        call(f"{silent}/x")


def test_calls_end_within_the_time_of_their_caller(silent):
    with time_limit(0.5), pytest.raises(StorageError, match="no answer in time"):
        objects.write_bytes(f"{silent}/x", b"data")


def test_the_time_of_a_caller_is_that_of_the_innermost_limit_and_ends_with_it():
    assert retries.seconds_left() is None
    with time_limit(50), time_limit(100):
        assert 40 < retries.seconds_left() <= 50
    assert retries.seconds_left() is None


def test_a_heartbeat_does_not_hold_the_process(silent, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.3)
    held = Lease(f"{silent}/.lease", 1, "token", "holder", "now")
    with heartbeat(held):
        time.sleep(0.1)  # the first sign of life is under way
    deadline = time.monotonic() + 60
    while any(thread.name == "lease" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(thread.name == "lease" for thread in threading.enumerate())

"""A producing thread and the thread that listens: whoever leaves first, nothing goes on behind the caller's back."""

import contextlib
import threading

import pytest

from components.cluster import listening
from components.cluster.listening import produce_while_listening
from components.errors import LeaseLost, StillWriting, Terminated
from components.stopping import request_stop, withdraw_stop
from components.store.lease import acquire_lease, keep_alive, read_sign_of_life


@pytest.fixture
def lease(tmp_path):
    return acquire_lease(str(tmp_path / "lease"), wait_seconds=0, report=print)


class Endless:
    """A producer that goes on until it is told to stop, or for ever."""

    def __init__(self, deaf: bool = False) -> None:
        self.told, self.ended, self.deaf = threading.Event(), threading.Event(), deaf

    def produce(self):
        yield 1
        while not self.told.wait(0.01) or self.deaf:
            pass
        self.ended.set()


def listen_to(producer, lease, listen=lambda: None):
    return produce_while_listening(producer.produce, listen, stop=producer.told.set, lease=lease, poll_seconds=0.01)


def test_every_result_comes_and_the_last_look_follows_the_end(lease):
    looks = []
    results = produce_while_listening(
        lambda: iter(range(3)), lambda: looks.append(1), stop=lambda: None, lease=lease, poll_seconds=0.01
    )
    assert list(results) == [0, 1, 2] and len(looks) >= 4


@pytest.mark.parametrize("error", [OSError("MLflow is away"), Terminated()])
def test_an_error_of_the_driver_stops_the_producer_before_it_is_raised(lease, error):
    producer, calls = Endless(), []

    def listen():
        calls.append(1)
        if len(calls) > 3:
            raise error

    with pytest.raises(type(error)):
        list(listen_to(producer, lease, listen))
    assert producer.ended.is_set()


def test_a_consumer_that_leaves_stops_the_producer(lease):
    producer = Endless()
    with contextlib.closing(listen_to(producer, lease)) as results:
        assert next(results) == 1
    assert producer.ended.is_set()


def test_what_was_posted_before_the_end_is_read_when_the_driver_leaves(lease):
    """A fit had saved the checkpoint behind an evaluation whose figures nobody had read yet."""
    producer, read = Endless(), []
    with contextlib.closing(listen_to(producer, lease, lambda: read.append(producer.ended.is_set()))) as results:
        assert next(results) == 1
    assert read[-1]  # the last look came after the producer's end


def test_a_request_to_stop_is_raised_as_what_was_asked(lease):
    producer = Endless()
    results = listen_to(producer, lease)
    try:
        assert next(results) == 1
        request_stop(Terminated)
        with pytest.raises(Terminated):
            next(results)
    finally:
        withdraw_stop()
    assert producer.ended.is_set()


def test_a_lease_that_another_run_took_over_stops_the_producer(lease):
    producer = Endless()
    results = listen_to(producer, lease)
    assert next(results) == 1
    lease.release()
    acquire_lease(lease.folder, wait_seconds=0, report=print)  # the newer run
    with contextlib.suppress(LeaseLost):
        lease.check()  # as its heartbeat does
    with pytest.raises(LeaseLost, match="newer run"):
        next(results)
    assert producer.ended.is_set()


def test_a_producer_that_does_not_end_keeps_the_lease_from_being_released(lease, monkeypatch):
    monkeypatch.setattr(listening, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(listening, "STOP_AGAIN_SECONDS", 0.05)
    producer = Endless(deaf=True)
    with pytest.raises(StillWriting), keep_alive(lease), contextlib.closing(listen_to(producer, lease)) as results:
        next(results)
    assert read_sign_of_life(lease.folder) is not None  # not released: it goes stale when the workers have ended
    producer.deaf = False

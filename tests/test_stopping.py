"""Being asked to stop: raised where one looks, as what was asked first, until it is withdrawn."""

import threading

import pytest

from components.errors import Terminated
from components.progress import Progress
from components.stopping import check_stop, pause, request_stop, stop_requested, withdraw_stop


@pytest.fixture(autouse=True)
def _nothing_stays_requested():
    yield
    withdraw_stop()


def test_nothing_is_raised_before_somebody_asks():
    check_stop()
    pause(0)
    assert not stop_requested()


def test_the_first_request_counts_until_it_is_withdrawn():
    request_stop(Terminated)
    request_stop()
    with pytest.raises(Terminated):
        check_stop()
    withdraw_stop()
    check_stop()


def test_a_pause_ends_with_the_request():
    threading.Timer(0.05, request_stop).start()
    with pytest.raises(KeyboardInterrupt):
        pause(3600)


def test_a_loop_that_shows_its_progress_is_left_there():
    request_stop()
    with pytest.raises(KeyboardInterrupt):
        Progress().update("tokenizer", done=1, total=2, unit="updates")

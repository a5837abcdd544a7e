"""Ctrl-C and SIGTERM at a real run: it ends soon, orderly and completely, and the next run makes the same artifacts."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.signals import descendants
from tests.endtoend.conftest import Place, environment, run_command
from tests.endtoend.test_kills import forget, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STOP_SECONDS = 60
"""Twice what is promised: the machine of a test is busy."""


def test_a_run_that_is_stopped_in_a_fit_ends_completely_and_goes_on_with_the_same_result(finished_run, copy_of):
    """Ctrl-C while three models are fitted side by side, then SIGTERM while a prior is."""
    place = copy_of(finished_run)
    digests = place.digests()
    forget(place, ["tokenizer", "classifier", "judge", "prior_bottom"])
    assert stop_driver_at("tokenizer", place, signal.SIGINT) == 130
    assert stop_driver_at("prior_bottom", place, signal.SIGTERM) == 143
    result = place.run()
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert place.digests() == digests


def stop_driver_at(step: str, place: Place, number: signal.Signals) -> int:
    """Start a run, send the signal once it works on `step`; returns the exit code."""
    driver = subprocess.Popen(
        run_command(),
        cwd=place.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(step, driver, place)
    below = descendants(driver.pid)
    os.kill(driver.pid, number)
    out, err = driver.communicate(timeout=STOP_SECONDS)
    assert "continues from the last checkpoint" in err and "Traceback" not in out + err and "***" not in err
    assert "made" not in out and "waiting for" not in out
    assert len(below) > 5  # Ray's processes
    deadline = time.monotonic() + 10  # what was killed may need a moment to be gone
    while (alive := [pid for pid in below if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive
    return driver.returncode


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"

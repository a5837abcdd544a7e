"""An evaluation that is killed: SIGKILL in the middle of the draw, then the same command again."""

import multiprocessing
import os
import signal
import time

import pytest

from components.evaluation import parts
from tests.evaluation.artifacts import artifacts_behind
from tests.evaluation.tiny import CONFIG, run_evaluation

pytestmark = pytest.mark.slow

ROWS_PER_PART = 3


def evaluate_until_killed(root, inputs):
    parts.ROWS_PER_PART = ROWS_PER_PART
    run_evaluation(root, inputs, "killed")


def test_after_kill_9_what_was_drawn_is_kept_and_the_result_is_the_same(generator_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "ROWS_PER_PART", ROWS_PER_PART)
    inputs = artifacts_behind(generator_folders, tmp_path, {"ant": 30, "bee": 30, "cat": 30})
    whole = run_evaluation(tmp_path, inputs, "whole", CONFIG)
    process = multiprocessing.get_context("spawn").Process(target=evaluate_until_killed, args=(tmp_path, inputs))
    process.start()
    drawn = tmp_path / "killed" / ".work" / "samples"
    deadline = time.monotonic() + 120
    while len(list(drawn.glob("*.rows.safetensors"))) < 4 and time.monotonic() < deadline:
        assert process.is_alive(), "it must not end before it is killed"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    kept = {path.name: path.stat().st_mtime_ns for path in drawn.glob("*.rows.safetensors")}
    assert 4 <= len(kept) < 24, "it must be killed in the middle of the draw"
    assert run_evaluation(tmp_path, inputs, "killed", CONFIG).digest == whole.digest
    assert {name: (drawn / name).stat().st_mtime_ns for name in kept} == kept

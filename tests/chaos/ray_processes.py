"""Faults of Ray's processes: a driver with its own Ray, an encoder, a trainer, the raylet."""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from tests.chaos import checks
from tests.chaos.driver import Command, Driver
from tests.chaos.encode import STOP_SECONDS, EncodeScene, recovery_outcome
from tests.chaos.run import RunScene
from tests.chaos.trials import Outcome, Recovery, Trial
from tests.endtoend.conftest import set_options

START_SECONDS = 240.0
"""Longest time until a worker is at work, on a busy machine."""
PROCESSES = {"encoder": "ray::EncodeWorker", "trainer": "TrainWorker", "raylet": "raylet/raylet"}
"""Part of the command line of each process, by its name in a fault."""


class RayScene:
    """`encode` with two encoders, and the tokenizer's fit, each on a Ray that the driver starts."""

    name = "Ray"
    phases: ClassVar = {
        "encode on Ray": {
            "driver killed": 0.4,
            "driver interrupted": 0.2,
            "encoder killed": 0.8,
            "encoder stopped for a moment": 0.2,
            "raylet killed": 0.4,
        },
        "fit on Ray": {"driver killed": 0.2, "driver interrupted": 0.2, "trainer killed": 0.4, "raylet killed": 0.2},
    }

    def __init__(self, folder: Path) -> None:
        """Both phases in folders of their own; what they must give is made without Ray."""
        self.folder = folder
        self._encode, self._run = EncodeScene(folder / "encode"), RunScene(folder / "run")

    def close(self) -> None:
        """Nothing was started."""

    def play(self, trial: Trial) -> Outcome:
        """One trial."""
        return self._play_encode(trial) if trial.phase == "encode on Ray" else self._play_fit(trial)

    def _play_encode(self, trial: Trial) -> Outcome:
        rows, _, seconds = self._encode.reference
        folder = self.folder / f"trial-{trial.seed}"
        folder.mkdir()
        output = folder / "output"
        command = on_ray(self._encode.command(self._encode.pictures, output), "resources.workers=2")
        recovery = Recovery(folder, lambda: Driver(command, folder / "log"), seconds)
        shards = 1 + int(trial.point * len(rows) / 8)
        disturb(trial, Driver(command, folder / "log"), recovery, lambda: len(list(output.rglob("part-*"))) >= shards)
        recovery.finish()
        if not recovery.problems:
            recovery.problems += checks.dataset_problems(str(output / self._encode.digest), rows)
            recovery.problems += checks.store_problems(str(output))
        if not recovery.problems:
            shutil.rmtree(folder)
        return recovery_outcome(trial, recovery)

    def _play_fit(self, trial: Trial) -> Outcome:
        digests, records = self._run.reference
        _, seconds = self._run.measure("tokenizer")
        self._run.forget("tokenizer")
        artifact, log = self._run.artifacts / "tokenizer", self.folder / f"trial-{trial.seed}.log"
        command = on_ray(self._run.command())
        recovery = Recovery(self.folder, lambda: Driver(command, log), seconds)
        checkpoints = int(trial.point * 4)
        disturb(
            trial,
            Driver(command, log),
            recovery,
            lambda: len(list(artifact.rglob("state.json"))) >= checkpoints and bool(list(artifact.rglob(".lease/*"))),
        )
        recovery.finish()
        if not recovery.problems:
            if checks.artifact_digests(self._run.artifacts) != digests:
                recovery.problems.append("the artifacts' digests must be those of an undisturbed run")
            recovery.problems += self._run.records.problems(records)
            recovery.problems += checks.store_problems(str(self._run.artifacts))
        if recovery.problems:
            self._run.start_anew(trial)
        return recovery_outcome(trial, recovery)


def on_ray(command: Command, *settings: str) -> Command:
    """The same command on a Ray of its own, with the leases' real times: Ray's processes start slowly."""
    return replace(command, ray=True, quick=False, arguments=[*command.arguments, *set_options(settings)])


def disturb(trial: Trial, driver: Driver, recovery: Recovery, ready: Callable[[], bool]) -> None:
    """Let the fault happen once `ready()`, and wait for the driver's end."""
    who, _, what = trial.fault.partition(" ")
    if driver.wait_for(ready, START_SECONDS):
        targets = [driver.pid] if who == "driver" else processes_below(driver.pid, PROCESSES[who])
        target = targets[int(trial.strength * len(targets))] if targets else 0
        with contextlib.suppress(ProcessLookupError):
            if not target:
                recovery.problems += [] if not driver.running else [f"found no {who} to disturb"]
            elif what == "stopped for a moment":
                os.kill(target, signal.SIGSTOP)
                time.sleep(trial.strength * 8)
                os.kill(target, signal.SIGCONT)
            else:
                os.kill(target, signal.SIGINT if what == "interrupted" else signal.SIGKILL)
    recovery.ended(driver, *([STOP_SECONDS] if what == "interrupted" else []))


def processes_below(pid: int, words: str) -> list[int]:
    """Processes that `pid` started, directly or not, and whose command line has `words`."""
    parents: dict[int, int] = {}
    lines: dict[int, bytes] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            process = int(stat.parent.name)
            parents[process] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            lines[process] = (stat.parent / "cmdline").read_bytes()

    def is_below(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == pid:
                return True
        return False

    return [process for process, line in sorted(lines.items()) if words.encode() in line and is_below(process)]

"""Faults in each step of the main job, shrunk until it takes seconds: `run`, in one process, MLflow in SQLite."""

import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from benchmarks.tiny import FITS, OVERRIDES
from tests.chaos import checks
from tests.chaos.driver import Command, Driver
from tests.chaos.encode import PROCESS_FAULTS, count, disturb, recovery_outcome
from tests.chaos.records import Records
from tests.chaos.trap import Trap
from tests.chaos.trials import Outcome, Recovery, Trial, expect_success
from tests.codes.conftest import write_pictures
from tests.endtoend.conftest import STEPS, set_options

PICTURES = 90
SETTINGS = (
    *OVERRIDES,
    "images.source=folder",
    "images.image_size=16",
    "images.held_out=0.2",
    "images.test=0.2",
    *(
        f"{fit}.training.{setting}"
        for fit in FITS
        for setting in ("updates=8", "evaluate_every=4", "checkpoint_every=2", "batch_size=16")
    ),
    *(f"{fit}.hidden=8" for fit in ("vqvae", "priors.top", "priors.bottom")),
    *(f"{fit}.residual_hidden=8" for fit in ("vqvae", "priors.top", "priors.bottom")),
    *(
        f"priors.{level}.{setting}"
        for level in ("top", "bottom")
        for setting in ("layers=1", "training.warmup_updates=2")
    ),
    "priors.bottom.filter_size=3",
    "priors.bottom.conditioning_layers=1",
    "classifier.hidden=4",
    "judge.hidden=4",
    "evaluation.samples=12",
    "orchestration.retry_delay=1",
)


class RunScene:
    """One step after the other is made again with a fault in it; the others are there already."""

    name = "run"
    phases: ClassVar = {
        f"run, {step}": {"driver killed": 0.4, "driver interrupted": 0.2, "driver stopped, successor": 0.4}
        for step in STEPS
    }

    def __init__(self, folder: Path) -> None:
        """Make everything once, undisturbed."""
        self.folder = folder
        write_pictures(folder / "pictures", range(PICTURES))
        self.artifacts = folder / "runs" / "artifacts"
        self._operations: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def close(self) -> None:
        """Nothing was started."""

    @property
    def variables(self) -> dict[str, str]:
        """Environment of the drivers."""
        return {}

    @cached_property
    def records(self) -> Records:
        """What MLflow holds."""
        return Records(f"sqlite:///{self.folder}/runs/mlflow.db")

    def command(self) -> Command:
        """The main job."""
        settings = (*SETTINGS, f"images.uri={self.folder / 'pictures'}")
        return Command(
            arguments=["run", "digits", *set_options(settings)], folder=self.folder, variables=self.variables
        )

    @cached_property
    def reference(self) -> tuple[dict[str, set[str]], dict]:
        """Digests and MLflow's records of an undisturbed run."""
        self._undisturbed(self.artifacts)
        return checks.artifact_digests(self.artifacts), self.records.read()

    def _undisturbed(self, counted: Path) -> tuple[int, float]:
        """Run the command; returns its file operations below a folder, and seconds."""
        started = time.monotonic()
        driver = Driver(self.command(), self.folder / "reference.log", count(counted))
        expect_success(driver, self.folder / "reference.log")
        return driver.operations, time.monotonic() - started

    def measure(self, step: str) -> tuple[int, float]:
        """File operations and seconds of an undisturbed run that makes `step` again."""
        if step not in self._operations:
            self.forget(step)
            self._operations[step], self._seconds[step] = self._undisturbed(self.artifacts / step)
        return self._operations[step], self._seconds[step]

    def forget(self, step: str) -> None:
        """Remove what was made by `step`, and that it was."""
        shutil.rmtree(self.artifacts / step)
        self.records.forget(step)

    def play(self, trial: Trial) -> Outcome:
        """One trial. After one that went wrong everything is made anew."""
        step = trial.phase.partition(", ")[2]
        digests, records = self.reference
        operations, seconds = self.measure(step)
        self.forget(step)
        log = self.folder / f"trial-{trial.seed}.log"
        recovery = Recovery(self.folder, lambda: Driver(self.command(), log), seconds)
        self.disturb(trial, Driver(self.command(), log, self.trap(trial, step, operations)), recovery)
        recovery.finish()
        if not recovery.problems:
            if checks.artifact_digests(self.artifacts) != digests:
                recovery.problems.append("the artifacts' digests must be those of an undisturbed run")
            recovery.problems += self.records.problems(records)
            recovery.problems += checks.store_problems(str(self.artifacts))
        if recovery.problems:
            self.start_anew(trial)
        return recovery_outcome(trial, recovery)

    def trap(self, trial: Trial, step: str, operations: int) -> Trap:
        """What happens in the driver, and when."""
        return Trap(str(self.artifacts / step), 1 + int(trial.point * operations), PROCESS_FAULTS[trial.fault])

    def disturb(self, trial: Trial, driver: Driver, recovery: Recovery) -> None:
        """Let the fault happen, and wait for the driver's end."""
        disturb(trial, driver, recovery)

    def start_anew(self, trial: Trial) -> None:
        """Keep what is wrong, and make everything again for the next trial."""
        (self.folder / "runs").rename(self.folder / f"trial-{trial.seed}")
        for name in ("records", "reference"):
            vars(self).pop(name, None)

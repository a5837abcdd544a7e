"""A trial: one fault at one point of one phase, drawn from a seed, and what came of it."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.chaos.driver import Driver

TRIES = 4
"""How often a command is run again until it succeeds."""
END_SECONDS = 240.0
"""Longest run of a command that nothing disturbs, on a busy machine."""


@dataclass(frozen=True)
class Trial:
    """What is done; the seed decides everything else."""

    seed: int
    phase: str
    fault: str
    point: float
    """When, as a fraction of the undisturbed phase."""
    strength: float
    """How much or how long, 0 .. 1: what it means depends on the fault."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a trial."""

    trial: Trial
    problems: Sequence[str]
    """What does not hold afterwards; empty: recovered."""
    exit_codes: Sequence[int]
    """Of the disturbed command and of those that followed it."""
    seconds_lost: float
    """Time until everything was done, less that of an undisturbed run."""
    not_tried: str = ""
    """Why this machine could not do it; such a trial counts for nothing."""

    @property
    def recovered(self) -> bool:
        """Whether everything holds."""
        return not self.problems and not self.not_tried


class NotTried(Exception):
    """This machine cannot do such a fault."""


class UndisturbedRunFailed(Exception):
    """A run fails without any fault: no trial can say anything."""


def expect_success(driver: Driver, log: Path) -> None:
    """Wait for the end of an undisturbed run; raises UndisturbedRunFailed."""
    if code := driver.exit_code(END_SECONDS):
        raise UndisturbedRunFailed(f"the undisturbed run must succeed, it ended with {code}: see {log}")


class Recovery:
    """Runs a command until it is done, after its first run was disturbed."""

    def __init__(self, folder: Path, start: Callable[[], Driver], undisturbed_seconds: float) -> None:
        """`start` runs the command once more, undisturbed."""
        self.folder, self._start = folder, start
        self._undisturbed = undisturbed_seconds
        self.exit_codes: list[int] = []
        self.problems: list[str] = []
        self._started = time.monotonic()
        self.seconds_lost = 0.0

    def ended(self, driver: Driver, seconds: float = END_SECONDS) -> int | None:
        """Wait for the end of a driver; one that hangs is a problem, and is killed."""
        try:
            code = driver.exit_code(seconds)
        except TimeoutError as error:
            self.problems.append(f"{error}, and was killed")
            code = None
        driver.end()
        if code is not None:
            self.exit_codes.append(code)
        return code

    def finish(self) -> None:
        """Run the command until it succeeds."""
        for _ in range(TRIES):
            if self.ended(self._start()) == 0:
                break
        else:
            self.problems.append(f"the command did not succeed in {TRIES} tries: exit codes {self.exit_codes}")
        self.seconds_lost = max(0.0, time.monotonic() - self._started - self._undisturbed)


class Scene(Protocol):
    """Phases of the pipeline that share servers, and in which faults are tried."""

    phases: Mapping[str, Mapping[str, float]]
    """By phase and fault: how often it is drawn, in relation to all others of all scenes."""

    def play(self, trial: Trial) -> Outcome:
        """Try one fault; raises NotTried where the machine cannot do it."""

    def close(self) -> None:
        """Stop what was started."""


def draw_trial(seed: int, scenes: Sequence[Scene], only: str = "") -> Trial:
    """The trial of a seed, among the faults of `scenes` whose "phase/fault" begins with `only`."""
    draw = random.Random(seed)
    choices = [
        (phase, fault, weight)
        for scene in scenes
        for phase, faults in scene.phases.items()
        for fault, weight in faults.items()
        if f"{phase}/{fault}".startswith(only)
    ]
    phase, fault, _ = draw.choices(choices, [weight for *_, weight in choices])[0]
    return Trial(seed, phase, fault, point=round(draw.random(), 4), strength=round(draw.random(), 4))

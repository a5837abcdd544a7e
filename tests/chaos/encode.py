"""Faults while a folder of pictures is encoded into a local folder: `encode`, in one process."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from components.codes.dataset import tokenizer_digest
from components.store.lease import TIME_TO_LIVE
from tests.chaos import checks
from tests.chaos.driver import TIME_SCALE, Command, Driver
from tests.chaos.trap import BALLOON, Trap, fill_disk, limit_file_size, remove_file, replace_file, send, shift_clock
from tests.chaos.trials import NotTried, Outcome, Recovery, Trial, expect_success
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.endtoend.conftest import set_options

PICTURES = 72
SETTINGS = ("codes.rows_per_shard=8", "codes.rows_per_wave=32", "codes.batch_size=4", "resources.workers=1")
DISK_BYTES = 4 << 20
CLOCK_JUMP = 3 * 86_400.0
"""Seconds; longer than anything is kept."""
STOP_SECONDS = 30.0
"""Seconds in which Ctrl-C and SIGTERM must end a driver."""


def nothing() -> None:
    """The act of a trap that only counts."""


class EncodeScene:
    """`encode` from a local folder to a local folder."""

    name = "encode"
    phases: ClassVar = {
        "encode": {
            "driver killed": 24,
            "driver terminated": 8,
            "driver interrupted": 8,
            "driver stopped, successor": 20,
            "driver stopped for a moment": 4,
            "two drivers at once": 8,
            "disk full": 10,
            "write cut short": 8,
            "image added": 8,
            "image changed": 8,
            "image removed": 8,
            "clock put forward, two drivers": 6,
            "clock put back, two drivers": 6,
        }
    }

    def __init__(self, folder: Path) -> None:
        """Everything goes below `folder`."""
        self.folder = folder
        self.pictures, self.tokenizer = folder / "pictures", folder / "tokenizer"
        self.tokenizer.mkdir(parents=True)
        tokenizer_with_seed(self.tokenizer, 0)
        write_pictures(self.pictures, range(PICTURES))
        write_pictures(folder / "other pictures", range(PICTURES + 3), seed=1)
        self.digest = tokenizer_digest(self.tokenizer)

    # --- the undisturbed run ------------------------------------------------------------------------------------------

    def command(self, pictures: Path, output: str | Path) -> Command:
        """`encode` of a folder of pictures."""
        words = ["encode", str(self.tokenizer), str(pictures), str(output), "--source", "folder"]
        return Command(arguments=[*words, *set_options(SETTINGS)], folder=self.folder)

    @cached_property
    def reference(self) -> tuple[list[dict], int, float]:
        """Rows, file operations and seconds of an undisturbed run (the second one: the first one warms up)."""
        for name in ("warm-up", "reference"):
            output = self.folder / name
            started = time.monotonic()
            driver = Driver(self.command(self.pictures, output), self.folder / "reference.log", count(output))
            expect_success(driver, self.folder / "reference.log")
            seconds = time.monotonic() - started
        return checks.dataset_rows(str(output / self.digest)), driver.operations, seconds

    # --- trials -------------------------------------------------------------------------------------------------------

    def play(self, trial: Trial) -> Outcome:
        """One trial in a folder of its own, which stays when something is wrong."""
        rows, operations, seconds = self.reference
        folder = self.folder / f"trial-{trial.seed}"
        folder.mkdir()
        on_small_disk = trial.fault == "disk full"
        output = self.small_disk / f"trial-{trial.seed}" if on_small_disk else folder / "output"
        pictures = self.pictures
        if trial.fault.startswith("image"):
            pictures = Path(shutil.copytree(self.pictures, folder / "pictures"))
        command = self.command(pictures, output)
        recovery = Recovery(folder, lambda: Driver(command, folder / "log"), seconds)
        operation = 1 + int(trial.point * operations)
        trap = Trap(str(output), operation, self._act(trial, pictures))
        disturb(trial, Driver(command, folder / "log", trap), recovery)
        if on_small_disk:
            (self.small_disk / BALLOON).unlink(missing_ok=True)
        recovery.finish()
        if not recovery.problems:
            expected = self._rows_of(pictures, folder) if trial.fault.startswith("image") else rows
            recovery.problems += checks.dataset_problems(str(output / self.digest), expected)
            recovery.problems += checks.store_problems(str(output))
        if not recovery.problems:
            shutil.rmtree(folder)
            shutil.rmtree(output, ignore_errors=True)
        return recovery_outcome(trial, recovery)

    def _act(self, trial: Trial, pictures: Path) -> Callable[[], None]:
        number = int(trial.strength * PICTURES)
        target = str(pictures / str(number % 3) / f"{number:04}.png")
        other = self.folder / "other pictures" / str(number % 3) / f"{number:04}.png"
        return {
            "image added": partial(replace_file, str(pictures / "0" / "!first.png"), str(other)),
            "image changed": partial(replace_file, target, str(other)),
            "image removed": partial(remove_file, target),
            "disk full": partial(fill_disk, str(self._disk), int(trial.strength * 20_000)),
            "clock put forward, two drivers": partial(shift_clock, trial.strength * CLOCK_JUMP),
            "clock put back, two drivers": partial(shift_clock, -trial.strength * CLOCK_JUMP),
            "write cut short": partial(limit_file_size, int(trial.strength * 4000)),
        }.get(trial.fault) or PROCESS_FAULTS[trial.fault]

    def _rows_of(self, pictures: Path, folder: Path) -> list[dict]:
        """What an undisturbed run makes of the pictures as they are now."""
        driver = Driver(self.command(pictures, folder / "expected"), folder / "expected.log")
        expect_success(driver, folder / "expected.log")
        return checks.dataset_rows(str(folder / "expected" / self.digest))

    # --- a small disk -------------------------------------------------------------------------------------------------

    @property
    def _disk(self) -> Path:
        return self.folder / "disk"

    @cached_property
    def small_disk(self) -> Path:
        """A disk of DISK_BYTES; raises NotTried where mounting one is not permitted."""
        self._disk.mkdir()
        line = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self._disk)]
        if subprocess.run(line, capture_output=True).returncode:
            raise NotTried("a small disk (tmpfs) could not be mounted: that needs root")
        return self._disk

    def close(self) -> None:
        """Unmount the small disk."""
        if "small_disk" in vars(self):
            subprocess.run(["umount", str(self._disk)], check=True)


# --- faults of processes, in every scene ------------------------------------------------------------------------------

PROCESS_FAULTS: dict[str, Callable[[], None]] = {
    "driver killed": partial(send, signal.SIGKILL),
    "driver terminated": partial(send, signal.SIGTERM),
    "driver interrupted": partial(send, signal.SIGINT),
    "driver stopped, successor": partial(send, signal.SIGSTOP),
    "driver stopped for a moment": partial(send, signal.SIGSTOP),
    "two drivers at once": nothing,
}
"""What a driver's trap does."""


def count(folder: Path) -> Trap:
    """A trap that only counts."""
    return Trap(str(folder), 0, nothing)


def disturb(trial: Trial, driver: Driver, recovery: Recovery) -> None:
    """Let the fault happen to `driver`, and wait for its end."""
    if trial.fault == "driver stopped, successor":
        if driver.wait_for(lambda: driver.stopped, 120):
            recovery.finish()  # the successor waits until the lease is stale, and does the work
            driver.send(signal.SIGCONT)
    elif trial.fault == "driver stopped for a moment":
        if driver.wait_for(lambda: driver.stopped, 120):
            time.sleep(trial.strength * TIME_TO_LIVE * TIME_SCALE * 0.8)
            driver.send(signal.SIGCONT)
    elif "two drivers" in trial.fault and driver.wait_for(lambda: driver.sprung, 120):
        recovery.finish()
    if trial.fault in ("driver terminated", "driver interrupted"):
        driver.wait_for(lambda: driver.sprung, 120)
        recovery.ended(driver, STOP_SECONDS)
    else:
        recovery.ended(driver)


def recovery_outcome(trial: Trial, recovery: Recovery) -> Outcome:
    """The outcome of a trial whose checks are done."""
    return Outcome(
        trial=trial,
        problems=recovery.problems,
        exit_codes=recovery.exit_codes,
        seconds_lost=round(recovery.seconds_lost, 1),
    )

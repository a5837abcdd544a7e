"""Faults of an S3 server, and of a driver at one of its requests: `encode` from s3:// to s3://."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from components.store import objects
from tests.chaos import checks
from tests.chaos.driver import Command, Driver
from tests.chaos.encode import EncodeScene, recovery_outcome
from tests.chaos.trials import Outcome, Recovery, Trial, expect_success
from tests.endtoend.conftest import set_options
from tests.services.faulty_proxy import FaultyProxy
from tests.services.swift_server import swift_server

PICTURES = 24
SETTINGS = ("codes.rows_per_shard=4", "codes.rows_per_wave=12", "codes.batch_size=4", "resources.workers=1")
BURSTS = {
    "503 burst": ("throttled", 40),
    "connections reset": ("reset", 40),
    "slow answers": ("slow", 5),
    "answers cut short": ("cut", 40),
    "black hole": ("black hole", 5),
}
"""Fault of the proxy, and the largest number of consecutive requests that get it."""
REFUSAL = "must refuse to create an object that exists"
"""Of the message about a store without conditional writes."""


class EncodeS3Scene:
    """`encode` from a bucket to a bucket, in one process, through a proxy that disturbs requests."""

    name = "encode on S3"
    phases: ClassVar = {
        "encode on S3": {
            **dict.fromkeys(BURSTS, 2),
            "PUT delivered late": 3,
            "no conditional PUT": 1,
            "driver killed": 3,
            "driver stopped, successor": 3,
        }
    }

    def __init__(self, folder: Path) -> None:
        """Start the server and the proxy; the checks read from the server itself."""
        self.folder = folder
        self._local = EncodeScene(folder / "local")
        self._until_end = contextlib.ExitStack()
        disk = self._until_end.enter_context(tempfile.TemporaryDirectory())  # /dev/shm may lack what Swift needs
        self._store = self._until_end.enter_context(swift_server(Path(disk)))
        self._proxy = FaultyProxy(self._store.endpoint)
        self._url = self._until_end.enter_context(self._proxy.running())
        os.environ.update(self._store.environment)
        self._until_end.callback(lambda: [os.environ.pop(name) for name in self._store.environment])
        self._root = f"s3://{self._store.bucket}/chaos"
        for path in sorted(self._local.pictures.rglob("*.png"))[:PICTURES]:
            objects.write_bytes(f"{self._root}/pictures/{path.parent.name}/{path.name}", path.read_bytes())

    def close(self) -> None:
        """Stop server and proxy."""
        self._proxy.release()
        self._until_end.close()

    def _command(self, output: str) -> Command:
        words = ["encode", str(self._local.tokenizer), f"{self._root}/pictures", output, "--source", "folder"]
        variables = {**self._store.environment, "AWS_ENDPOINT_URL": self._url, "AWS_MAX_ATTEMPTS": "1"}
        return Command(arguments=[*words, *set_options(SETTINGS)], folder=self.folder, variables=variables)

    @cached_property
    def reference(self) -> tuple[list[dict], int, float]:
        """Rows, requests and seconds of an undisturbed run (the second one: the first one warms up)."""
        for name in ("warm-up", "reference"):
            self._proxy.seen.clear()
            started = time.monotonic()
            driver = Driver(self._command(f"{self._root}/{name}"), self.folder / "reference.log")
            expect_success(driver, self.folder / "reference.log")
            seconds, requests = time.monotonic() - started, self._proxy.seen.total()
        return checks.dataset_rows(f"{self._root}/reference/{self._local.digest}"), requests, seconds

    def play(self, trial: Trial) -> Outcome:
        """One trial in a folder of the bucket of its own."""
        rows, requests, seconds = self.reference
        folder, output = self.folder / f"trial-{trial.seed}", f"{self._root}/trial-{trial.seed}"
        folder.mkdir()
        command = self._command(output)
        recovery = Recovery(folder, lambda: Driver(command, folder / "log"), seconds)
        disturbance = _Disturbance(trial, 1 + int(trial.point * requests))
        self._proxy.choose = disturbance.choose
        try:
            self._disturb(trial, disturbance, Driver(command, folder / "log"), recovery)
            recovery.finish()
            self._proxy.release()
            time.sleep(0.5)  # until a late request has arrived
        finally:
            self._proxy.choose = None
        if trial.fault == "no conditional PUT" and REFUSAL not in (folder / "log").read_text():
            recovery.problems.append("a store that lets an object be created twice must be refused")
        if not recovery.problems:
            recovery.problems += checks.dataset_problems(f"{output}/{self._local.digest}", rows)
            recovery.problems += checks.store_problems(output)
        if not recovery.problems:
            shutil.rmtree(folder)
        return recovery_outcome(trial, recovery)

    def _disturb(self, trial: Trial, disturbance: "_Disturbance", driver: Driver, recovery: Recovery) -> None:
        disturbance.send = driver.send
        if trial.fault == "driver stopped, successor":
            if driver.wait_for(lambda: driver.stopped, 120):
                recovery.finish()
                driver.send(signal.SIGCONT)
                self._proxy.release()
        elif trial.fault == "PUT delivered late" and trial.strength < 0.5:
            threading.Timer(trial.strength * 20, self._proxy.release).start()
        recovery.ended(driver)
        disturbance.over = True


class _Disturbance:
    """Says which request gets which fault."""

    def __init__(self, trial: Trial, first: int) -> None:
        self._trial, self._first = trial, first
        self._count = 0
        self.over = False
        """Whether all further requests are left alone."""
        self.send: Callable[[signal.Signals], None] = lambda number: None
        """Sends the driver a signal."""

    def choose(self, method: str, path: str) -> str:
        """For FaultyProxy; the proxy calls it for one request after the other."""
        self._count += 1
        fault, strength = self._trial.fault, self._trial.strength
        if self.over:
            return ""
        if fault == "no conditional PUT":
            return "unconditional"
        if fault in BURSTS:
            kind, longest = BURSTS[fault]
            return kind if self._first <= self._count <= self._first + int(strength * longest) else ""
        if self._count < self._first or (method != "PUT" and fault == "PUT delivered late"):
            return ""
        self.over = True
        if fault == "PUT delivered late":
            return "late"
        self.send(signal.SIGKILL if fault == "driver killed" else signal.SIGSTOP)
        if fault == "driver killed":
            return "" if strength < 0.5 else "reset"
        return "" if strength < 0.5 else "late"  # the request itself may be delivered after the successor is done

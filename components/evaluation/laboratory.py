"""Where an evaluation works: its settings and models, and running its tasks part by part.

The driver receives a few numbers per image. Images, features and distances stay in the workers and in files below the
step's work folder, so that an evaluation that was killed goes on.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from components.cluster.tasks import run_tasks
from components.config import StepResources
from components.evaluation.config import EvaluationConfig
from components.evaluation.instruments import InstrumentSettings
from components.evaluation.parts import finished_parts
from components.images.pixels import PixelReader
from components.images.snapshot import Snapshot
from components.store import commits, objects
from components.workspace import Workspace

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """What all parts of an evaluation share."""

    config: EvaluationConfig
    instruments: InstrumentSettings
    snapshot: Snapshot
    resources: StepResources
    workspace: Workspace

    @property
    def reader(self) -> PixelReader:
        """Reads the snapshot's images."""
        return PixelReader(self.snapshot.pixels, self.snapshot.seed)

    def folder(self, name: str) -> str:
        """Folder of the parts of the set `name`."""
        return objects.join(self.workspace.uri, commits.WORK_FOLDER, name)

    def run_parts(
        self,
        what: str,
        work: Callable[..., Result],
        arguments: Sequence[tuple[Any, ...]],
        *,
        folder: str,
        images: Sequence[int],
        read: Callable[[int], Result],
    ) -> dict[int, Result]:
        """Result of `work(*arguments[number])` by number, each a part of `images[number]` images in `folder`.

        Parts that an earlier run finished are read back by `read(number)`.
        """
        finished = finished_parts(folder)
        numbers = [number for number in range(len(arguments)) if number not in finished]
        results = {number: read(number) for number in range(len(arguments)) if number in finished}
        done, total, drawn, started = sum(images[number] for number in results), sum(images), 0, time.monotonic()
        self.workspace.progress.update(what, done=done, total=total, unit="images")
        tasks = run_tasks(
            work,
            [arguments[number] for number in numbers],
            what=f"{self.workspace.name}: {what}",
            resources=self.resources,
            cluster=self.workspace.cluster,
        )
        with contextlib.closing(tasks):
            for index, result in tasks:
                self.workspace.lease.check()
                results[numbers[index]] = result
                drawn += images[numbers[index]]
                rate = drawn / (time.monotonic() - started)
                self.workspace.progress.update(what, done=done + drawn, total=total, unit="images", rate=rate)
        self.workspace.progress.finish(what)
        return results

    def run_all(self, what: str, work: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]) -> list[Result]:
        """Results of `work(*each)` for each of `arguments`, in their order."""
        results: dict[int, Result] = {}
        self.workspace.progress.update(what, done=0, total=len(arguments), unit="tasks")
        tasks = run_tasks(
            work,
            arguments,
            what=f"{self.workspace.name}: {what}",
            resources=self.resources,
            cluster=self.workspace.cluster,
        )
        with contextlib.closing(tasks):
            for number, result in tasks:
                self.workspace.lease.check()
                results[number] = result
                self.workspace.progress.update(what, done=len(results), total=len(arguments), unit="tasks")
        self.workspace.progress.finish(what)
        return [results[number] for number in range(len(arguments))]

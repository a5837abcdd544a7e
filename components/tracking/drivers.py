"""Several drivers in one pipeline run: each marks itself there, and only the last one to leave ends the run.

A mark is a tag that its driver changes every few seconds. A mark that does not change while it is watched belongs to a
driver that was killed; clocks of different machines are never compared.
"""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass

from mlflow import MlflowClient

from components.tracking.tags import DRIVER_TAG

BEAT_SECONDS = 10.0
"""Seconds between two changes of a mark."""
DEAD_SECONDS = 35.0
"""A mark that has not changed for this long belongs to nobody: three changes did not come."""


@dataclass
class _Sight:
    """Another driver's mark, as seen from here."""

    value: str
    changed_at: float
    """Clock time of this process at which it was first seen with this value."""
    moved: bool
    """Whether it was seen to change."""


class DriverMark:
    """The mark of this process in a pipeline run, and what it sees of the others'."""

    def __init__(self, client: MlflowClient, run_id: str, token: str) -> None:
        self._client, self._run_id, self._tag = client, run_id, DRIVER_TAG + token
        self._beats = 0
        self._others: dict[str, _Sight] = {}
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="driver mark", daemon=True)
        self.beat()
        self._thread.start()

    def _keep(self) -> None:
        while not self._left.wait(BEAT_SECONDS):
            try:
                self.beat()
            except Exception:  # MLflow is away: nobody can change a mark, so that none looks dead afterwards
                self._others = {}

    def beat(self) -> None:
        """Change the mark and look at the others."""
        self._beats += 1
        self._client.set_tag(self._run_id, self._tag, f"{socket.gethostname()}, sign of life {self._beats}")
        self._look()

    def _look(self) -> None:
        tags, now = self._client.get_run(self._run_id).data.tags, time.monotonic()
        marks = {tag: value for tag, value in tags.items() if tag.startswith(DRIVER_TAG) and tag != self._tag}
        seen = {tag: self._others.get(tag) for tag in marks}
        self._others = {
            tag: sight if sight and sight.value == marks[tag] else _Sight(marks[tag], now, sight is not None)
            for tag, sight in seen.items()
        }

    def leave(self) -> None:
        """Stop changing the mark. Its tag is removed with the entry that ends the run."""
        self._left.set()
        self._thread.join(1.0)  # unless it hangs in a request

    def remove_dead(self) -> None:
        """Remove marks of drivers that were killed; waits up to DEAD_SECONDS for those it has not watched enough."""
        self._look()
        deadline = time.monotonic() + 2 * DEAD_SECONDS  # in case they cannot be removed
        while suspects := [tag for tag, sight in self._others.items() if not sight.moved or self._is_dead(sight)]:
            if time.monotonic() > deadline:
                return
            for tag in suspects:
                if self._is_dead(self._others[tag]):
                    with contextlib.suppress(Exception):  # somebody else removed it
                        self._client.delete_tag(self._run_id, tag)
            time.sleep(min(1.0, BEAT_SECONDS))
            self._look()

    def _is_dead(self, sight: _Sight) -> bool:
        return time.monotonic() - sight.changed_at >= DEAD_SECONDS

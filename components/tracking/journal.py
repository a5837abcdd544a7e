"""The MLflow run of one step, as the step and the memo write it: figures go through the sender and never wait."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from components.artifacts import Artifact
from components.errors import LeaseLost, StorageError, TrackingError
from components.tracking.sender import Sender

FAILURE_SECONDS = 5.0
"""How long a failed step waits for MLflow to take that it failed."""

Links = Sequence[Mapping[str, str]]
"""Kind, digest, MLflow run and URI of each artifact that a step was made from."""


class RunJournal:
    """The MLflow run of a step: a Journal for the step, and the pipeline's records about it.

    Everything but `finish` is kept on disk first and sent in the background: it neither waits for MLflow nor raises.
    """

    def __init__(
        self, sender: Sender, run_id: str, logged: Mapping[str, int], end: Callable[[str, Artifact, Links], None]
    ) -> None:
        """`logged`: newest update by metric; `end` writes the artifact's record into the run and ends it."""
        self._sender, self.run_id, self._end = sender, run_id, end
        self._links: Links = []
        self._last_update = dict(logged)  # what a resumed fit logs again is skipped

    def _put(self, kind: str, body: Mapping[str, Any], data: bytes = b"") -> None:
        self._sender.put(self.run_id, kind, {**body, "time": time.time()}, data)

    # --- what a step writes -------------------------------------------------------------------------------------------

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log `values` at update `step`, leaving out those already logged at this update or a later one."""
        new = {key: float(value) for key, value in values.items() if self._last_update.get(key, -1) < step}
        if new:
            self._put("metrics", {"step": step, "values": new})
            self._last_update |= dict.fromkeys(new, step)

    def picture(self, name: str, png: bytes, step: int | None = None) -> None:
        """A PNG under pictures/; with `step`, one of a series in MLflow's image view."""
        self._put("picture", {"name": name, "step": step}, png)

    def document(self, name: str, text: str) -> None:
        """A text file at the top of the run's artifacts."""
        self._put("document", {"name": name}, text.encode())

    # --- what the pipeline writes -------------------------------------------------------------------------------------

    def parameters(self, values: Mapping[str, object]) -> None:
        """Log flat settings that the run does not have yet; values are cut at MLflow's limit."""
        self._put("parameters", {"values": {key: str(value) for key, value in values.items()}})

    def inputs(self, artifacts: Sequence[Artifact]) -> None:
        """Record what the run is made from: as MLflow datasets with digests, and in the tag that `ancestry` follows."""
        self._links = [
            {"kind": artifact.kind, "digest": artifact.digest, "run_id": artifact.run_id, "uri": artifact.uri}
            for artifact in artifacts
        ]
        self._put("inputs", {"links": self._links, "fingerprints": [artifact.fingerprint for artifact in artifacts]})

    def flush(self) -> None:
        """Wait until MLflow has everything that was written; raises TrackingError when its patience is over."""
        self._sender.flush(self.run_id)

    def finish(self, artifact: Artifact) -> None:
        """End the run once its artifact is committed and all figures were sent, and store the artifact's record in it.

        Raises TrackingError when MLflow does not answer for longer than its patience, LeaseLost when another driver
        has taken the step over meanwhile, DeletedRecord when the run was deleted.
        """
        self.flush()
        self._sender.check(self.run_id)
        self._end(self.run_id, artifact, self._links)

    def fail(self, reason: str) -> None:
        """Mark the run as failed; it stays open for the next attempt at the same step.

        When another driver has taken the step over, it continues this run: then nothing more is written.
        """
        try:
            self._sender.check(self.run_id)
        except LeaseLost:
            self._sender.abandon(self.run_id)
            return
        except StorageError:  # as when the store is what failed
            pass
        self._put("failure", {"reason": reason})
        with contextlib.suppress(TrackingError):  # it is kept, like the figures
            self._sender.flush(self.run_id, FAILURE_SECONDS)
        self._sender.leave(self.run_id)

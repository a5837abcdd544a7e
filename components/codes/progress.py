"""Progress of an encode job: a progress line, and figures for the journal."""

import time

from components.codes.job_record import ShardResult
from components.codes.plan import Wave
from components.workspace import Workspace


class EncodeProgress:
    """Counts the rows of a snapshot that are encoded, and shows them."""

    def __init__(self, workspace: Workspace, total_rows: int) -> None:
        self._workspace, self.total_rows = workspace, total_rows
        self._rows_reused = self._rows_made = self._rejects = self._bytes_written = 0  # so far, in this job
        self._rows_in_progress: dict[str, int] = {}
        """Rows encoded so far of each shard that is not written yet."""
        self._written: set[str] = set()
        self._started = time.monotonic()
        self._shown = False

    def start_wave(self, wave: Wave) -> None:
        """Count what needs no work in this wave: rows of finished shards, and rejects on record."""
        self._rejects += len(wave.rejects)
        self._rows_reused += wave.rows - sum(request.rows.num_rows for request in wave.encode)

    def rows_encoded(self, name: str, rows: int) -> None:
        """Count `rows` rows, encoded so far, of the shard `name`, which is not written yet."""
        if name not in self._written:  # the message of a worker may arrive after its shard
            self._rows_in_progress[name] = rows
        self.show()

    def shard_written(self, result: ShardResult) -> None:
        """Count a result and log the figures."""
        self._rows_in_progress.pop(result.name, None)
        self._written.add(result.name)
        self._rows_made += (result.shard.rows if result.shard else 0) + len(result.rejected)
        self._rejects += len(result.rejected)
        self._bytes_written += result.shard.size if result.shard else 0
        figures = {"images_per_second": self._rate(), "bytes_written": float(self._bytes_written)}
        self._workspace.journal.metrics(self._rows_reused + self._rows_made, figures)
        self.show()

    def finish(self) -> None:
        """Remove the progress line."""
        if self._shown:
            self._workspace.progress.finish(self._workspace.name)

    def show(self) -> None:
        """Update the progress line."""
        self._shown = True
        self._workspace.progress.update(
            self._workspace.name,
            # rows of a rewritten shard are counted twice, as reused and as made
            done=min(self.total_rows, self._rows_reused + self._rows_made + sum(self._rows_in_progress.values())),
            total=self.total_rows,
            unit="images",
            rate=self._rate(),
            note=f"{self._rejects} rejects, {self._bytes_written / 1e6:.1f} MB written",
        )

    def _rate(self) -> float:
        """Images per second, since the job began."""
        rows = self._rows_made + sum(self._rows_in_progress.values())
        return rows / max(time.monotonic() - self._started, 1e-9)  # finite, even if the clock did not move

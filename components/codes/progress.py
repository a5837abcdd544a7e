"""How far an encode job is: one line for a person, figures for the journal."""

import time
from collections.abc import Sequence

from components.codes.dataset import ShardResult
from components.codes.plan import Wave
from components.workspace import Workspace


class EncodeProgress:
    """How far the job is, for a person and for the journal."""

    def __init__(self, workspace: Workspace, total: int) -> None:
        self._workspace, self._total = workspace, total
        self._passed = self._found = self._made = self._rejects = self._bytes = 0
        self._under_way: dict[str, int] = {}
        self._written: set[str] = set()
        self._started = time.monotonic()
        self._told = False

    def start_wave(self, wave: Wave, found: Sequence[ShardResult]) -> None:
        """What the plan says is there already counts as done."""
        self._rejects += sum(len(done.rejects) for done in found)
        before = {done.name for done in found}
        asked = sum(one.rows.num_rows for one in wave.encode if one.name not in before)
        self._passed += wave.rows - asked

    def listen(self, notes: Sequence[tuple[str, int]]) -> None:
        """Notes of encoders: (shard, rows of it that are encoded)."""
        self._under_way |= {name: rows for name, rows in notes if name not in self._written}
        self._tell()

    def done(self, done: ShardResult) -> None:
        """One shard is written."""
        self._under_way.pop(done.name, None)
        self._written.add(done.name)
        rows = (done.shard.rows if done.shard else 0) + len(done.rejects)
        self._made += rows
        self._rejects += len(done.rejects)
        self._bytes += done.shard.size if done.shard else 0
        figures = {"images_per_second": self._rate(), "bytes_written": float(self._bytes)}
        self._workspace.journal.metrics(self._passed + self._made, figures)
        self._tell()

    def finish(self) -> None:
        """Take the line away."""
        if self._told:
            self._workspace.progress.finish(self._workspace.name)

    def _rate(self) -> float:
        return (self._made + sum(self._under_way.values())) / max(time.monotonic() - self._started, 1e-9)

    def _tell(self) -> None:
        self._told = True
        self._workspace.progress.update(
            self._workspace.name,
            done=min(self._total, self._passed + self._made + sum(self._under_way.values())),
            total=self._total,
            unit="images",
            rate=self._rate(),
            note=f"{self._rejects} rejects, {self._bytes / 1e6:.1f} MB written",
        )

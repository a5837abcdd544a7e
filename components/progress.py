"""Progress of running jobs, for people: one line per job, with its rate and the time left.

On a terminal the lines are redrawn in place; elsewhere (a log file, CI) a plain line is printed every few seconds.
"""

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from components.stopping import check_stop

PLAIN_LINE_SECONDS = 5.0
"""Seconds between two plain lines of one job."""
REDRAWS_PER_SECOND = 4
"""On a terminal."""


@dataclass
class _Job:
    total: int
    unit: str
    started: float
    """Clock time of the first update."""
    done_before: int | None = None
    """Units done at the first update: the work of an earlier run, which says nothing about the speed of this one."""
    done: int = 0
    note: str = ""
    rate: float | None = None
    printed: float = field(default=float("-inf"))
    """Clock time of the last plain line."""
    line: str = ""
    """The last plain line."""


def format_duration(seconds: float) -> str:
    """`95` -> `1:35`."""
    seconds = max(0, round(seconds))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


class Progress:
    """Collects the state of running jobs and shows it. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._live: Any = None
        self._console: Any = None

    def say(self, message: str) -> None:
        """Print one line that stays."""
        with self._lock:
            if self._live:
                self._console_of().print(message, highlight=False, markup=False, soft_wrap=True)
            else:
                print(message, flush=True)

    def update(self, job: str, *, done: int, total: int, unit: str, rate: float | None = None, note: str = "") -> None:
        """Show that `job` has done `done` of `total` units; `rate`: images per second, None if unknown.

        Raises KeyboardInterrupt when somebody asked to stop: a loop that shows its progress can be left here.
        """
        check_stop()
        with self._lock:
            now = time.monotonic()
            state = self._jobs.setdefault(job, _Job(total, unit, now))
            if state.done_before is None:
                state.done_before, state.started = done, now
            state.done, state.total, state.note, state.rate = done, total, note, rate
            if sys.stdout.isatty():
                self._redraw()
            elif now - state.printed >= PLAIN_LINE_SECONDS:
                state.printed, state.line = now, self._line(job, state)
                print(state.line, flush=True)

    def finish(self, job: str) -> None:
        """Remove the line of `job`; without a terminal, print the final line."""
        with self._lock:
            state = self._jobs.pop(job, None)
            if state and not sys.stdout.isatty() and (line := self._line(job, state)) != state.line:
                print(line, flush=True)
            if self._live:
                self._redraw()
                if not self._jobs:
                    self._live.stop()
                    self._live = None

    def _line(self, job: str, state: _Job) -> str:
        spent = time.monotonic() - state.started
        done_here = state.done - (state.done_before or 0)
        seconds_left = spent / done_here * (state.total - state.done) if done_here > 0 else None
        time_left = "starting" if seconds_left is None else f"{format_duration(seconds_left)} left"
        fraction = state.done / max(state.total, 1)
        rate = f", {state.rate:,.0f} images/s" if state.rate else ""
        note = f"  {state.note}" if state.note else ""
        return f"  {job:<14} {fraction:4.0%}  {state.done:,}/{state.total:,} {state.unit}{rate}, {time_left}{note}"

    def _console_of(self) -> Any:
        from rich.console import Console

        self._console = self._console or Console()
        return self._console

    def _redraw(self) -> None:
        from rich.live import Live
        from rich.text import Text

        lines = Text("\n".join(self._line(job, state) for job, state in self._jobs.items()))
        if self._live is None:
            self._live = Live(lines, console=self._console_of(), refresh_per_second=REDRAWS_PER_SECOND, transient=True)
            self._live.start()
        self._live.update(lines)

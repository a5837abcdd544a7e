"""What a person sees while a step works: one line a job, with its rate and the time left.

On a terminal the lines redraw in place; elsewhere (a log file, CI) a plain line is printed every few seconds.
"""

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

PLAIN_LINE_SECONDS = 5.0
"""Seconds between two plain lines of one job."""


@dataclass
class _Job:
    total: int
    unit: str
    started: float
    first: int | None = None
    done: int = 0
    note: str = ""
    rate: float | None = None
    printed: float = field(default=float("-inf"))


def format_duration(seconds: float) -> str:
    """`95` -> `1:35`."""
    seconds = max(0, round(seconds))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours}:{minutes:02d}:{seconds % 60:02d}" if hours else f"{minutes}:{seconds % 60:02d}"


class Progress:
    """Collects the state of running jobs and shows it. Safe to call from several threads."""

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()
        self._live: Any = None
        self._console: Any = None

    def say(self, message: str) -> None:
        """One line that stays."""
        with self._lock:
            if self._live:
                self._console_of().print(message, highlight=False, markup=False, soft_wrap=True)
            else:
                print(message, flush=True)

    def update(self, job: str, *, done: int, total: int, unit: str, rate: float | None = None, note: str = "") -> None:
        """Show that `job` has done `done` of `total` units; `rate` is in images (or rows) a second where it differs."""
        with self._lock:
            now = time.monotonic()
            state = self._jobs.setdefault(job, _Job(total, unit, now))
            if state.first is None:
                state.first, state.started = done, now
            state.done, state.total, state.note, state.rate = done, total, note, rate
            if sys.stdout.isatty():
                self._redraw()
            elif now - state.printed >= PLAIN_LINE_SECONDS:
                state.printed = now
                print(self._line(job, state), flush=True)

    def finish(self, job: str) -> None:
        """Take the line of `job` away; where lines stay, its last one is told."""
        with self._lock:
            state = self._jobs.pop(job, None)
            if state and not sys.stdout.isatty():
                print(self._line(job, state), flush=True)
            if self._live:
                self._redraw()
                if not self._jobs:
                    self._live.stop()
                    self._live = None

    def _line(self, job: str, state: _Job) -> str:
        spent = time.monotonic() - state.started
        made = state.done - (state.first or 0)
        left = f"{format_duration(spent / made * (state.total - state.done))} left" if made > 0 else "starting"
        share = state.done / max(state.total, 1)
        rate = f", {state.rate:,.0f} images/s" if state.rate else ""
        note = f"  {state.note}" if state.note else ""
        return f"  {job:<14} {share:4.0%}  {state.done:,}/{state.total:,} {state.unit}{rate}, {left}{note}"

    def _console_of(self) -> Any:
        from rich.console import Console

        self._console = self._console or Console()
        return self._console

    def _redraw(self) -> None:
        from rich.live import Live
        from rich.text import Text

        lines = Text("\n".join(self._line(job, state) for job, state in self._jobs.items()))
        if self._live is None:
            self._live = Live(lines, console=self._console_of(), refresh_per_second=4, transient=True)
            self._live.start()
        self._live.update(lines)

"""The progress line of a draw."""

import time

from components.generator.samples import DrawReport
from components.progress import Progress

SAMPLING_JOB = "sampling"
"""Name of a draw's progress line."""


def show_sampling(progress: Progress) -> DrawReport:
    """A report that shows a draw in `progress`, with images per second, until its last image is drawn."""
    started = time.monotonic()

    def report(drawn: int, total: int) -> None:
        rate = drawn / (time.monotonic() - started) if drawn else None
        progress.update(SAMPLING_JOB, done=drawn, total=total, unit="images", rate=rate)
        if drawn == total:
            progress.finish(SAMPLING_JOB)

    return report

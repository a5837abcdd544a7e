"""`python -m tests.endtoend.without_ray <verb> ...`: the pipeline's command line, its steps in its own process.

The artifacts are those of a run on Ray (test_plain_loop.py), for a sixth of the processor time.
"""

import sys
from collections.abc import Sequence

from pipeline.cli import main
from pipeline.memo import StepResult
from pipeline.session import Session
from pipeline.step import Step


def run_in_turn(session: Session, steps: Sequence[Step]) -> tuple[list[StepResult], BaseException | None]:
    """Steps of a group one after the other: fits in one process share its random number generator."""
    return [session.run_step(step) for step in steps], None


if __name__ == "__main__":
    Session.cluster = lambda session: None  # type: ignore[method-assign, assignment, return-value]
    Session.run_group = run_in_turn  # type: ignore[method-assign, assignment]
    sys.exit(main())

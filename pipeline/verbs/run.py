"""`run`: materialise the DAG in this process and print a summary at the end."""

import sys
import time
from collections.abc import Sequence

from components.errors import ExitCode, GateFailed, LeaseHeld
from pipeline.config_files import load_config
from pipeline.gates import summarise_verdicts
from pipeline.session import Session
from pipeline.verbs.summary import print_summary


def run_pipeline(source: str, overrides: Sequence[str]) -> int:
    """Run the pipeline of a config; returns the exit code, or raises the error that stopped the run."""
    config = load_config(source, overrides)
    started = time.monotonic()
    session = Session(config)
    _ = session.memo  # a store or a server that does not answer is reported before anything starts
    from pipeline.definitions import materialise  # imports the orchestrator

    succeeded = False
    try:
        succeeded = materialise(config, session)
    finally:
        session.close(succeeded)
    if session.failure is not None:
        raise session.failure
    if not session.good:
        _print_failed_gates(session)
        return GateFailed.exit_code
    print_summary(session, source, overrides, time.monotonic() - started)
    return ExitCode.DONE if succeeded else LeaseHeld.exit_code


def _print_failed_gates(session: Session) -> None:
    print("\nStopped at a quality gate. The artifact is kept for inspection; nothing is built on it:", file=sys.stderr)
    for result in session.memo.results.values():
        if not result.good:
            print(f"  {result.artifact.kind}: {summarise_verdicts(result.verdicts)}", file=sys.stderr)
            print(f"    see {session.tracker.run_link(result.artifact.run_id)}", file=sys.stderr)
    print("Change the settings that made it, or gates.* if the limit is wrong, and run again.", file=sys.stderr)

"""`run`: materialise the DAG in this process and say at the end what came of it."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Sequence

from components.errors import LeaseHeld
from pipeline.cli import GATE, OK, exit_code
from pipeline.config import PipelineConfig, load_config
from pipeline.gates import summarise_verdicts
from pipeline.session import Session
from pipeline.verbs.summary import print_summary


def run_pipeline(source: str, overrides: Sequence[str]) -> int:
    """Run the pipeline of a config; returns the exit code."""
    config = load_config(source, overrides)
    started = time.monotonic()
    session = Session(config)
    _ = session.memo  # a store or a server that does not answer is told before anything starts
    succeeded = materialise(config, session)
    session.close(succeeded)
    if session.failure is not None:
        raise session.failure
    if not session.good:
        _print_gates(session)
        return GATE
    print_summary(session, source, overrides, time.monotonic() - started)
    return OK if succeeded else exit_code(LeaseHeld())


def materialise(config: PipelineConfig, session: Session) -> bool:
    """One run of the DAG on the orchestrator's instance, in this process; returns whether all of it succeeded."""
    warnings.filterwarnings("ignore", module="dagster")
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    import dagster as dg

    from pipeline.definitions import JOB, definitions_of, instance_folder

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with dg.DagsterInstance.from_config(str(instance_folder(config))) as instance:
        job = definitions_of(config, session).get_job_def(JOB)
        try:
            quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
            return job.execute_in_process(instance=instance, raise_on_error=False, run_config=quiet).success
        except dg.DagsterExecutionInterruptedError:
            raise KeyboardInterrupt from None


def _print_gates(session: Session) -> None:
    print(
        "\nStopped at a quality gate. What was made is kept and looked at, and does not count as good:", file=sys.stderr
    )
    for result in session.memo.results.values():
        if not result.good:
            print(f"  {result.artifact.kind}: {summarise_verdicts(result.verdicts)}", file=sys.stderr)
            print(f"    look: {session.tracker.run_link(result.artifact.run_id)}", file=sys.stderr)
    print("Change the settings that made it, or gates.* if the bar is wrong, and run again.", file=sys.stderr)

"""The steps' bare work, in one process and without Ray, Dagster or MLflow: what the pipeline's overhead is beside.

    python -m benchmarks.bare [section.key=value ...]

Runs the table of pipeline/dag.py in a plain loop on the digits preset. Prints one JSON line: CPU seconds by step.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from components.artifacts import Artifact
from components.store.lease import acquire_lease, keep_alive
from components.workspace import Workspace
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config
from pipeline.dag import dag_of


class FinishedStep(NamedTuple):
    """What one step made, and its cost."""

    artifact: Artifact
    seconds: float
    """CPU seconds of its work."""


def main() -> None:
    """All steps in the order of the DAG."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        steps = run_steps(load_config("digits", sys.argv[1:]), Path(folder))
        print(json.dumps({name: step.seconds for name, step in steps.items()}))


def run_steps(config: PipelineConfig, root: Path) -> dict[str, FinishedStep]:
    """The finished steps by name; their artifacts go below `root`."""
    finished: dict[str, FinishedStep] = {}
    for name, step in dag_of(config).items():
        started = time.process_time()
        inputs = {needed: finished[needed].artifact for needed in step.inputs}
        fingerprint = step.fingerprint(inputs, config.seed)
        lease = acquire_lease(str(root / "leases" / name), wait_seconds=0, report=print)
        with keep_alive(lease):
            folder = str(root / name)
            workspace = Workspace(name=name, fingerprint=fingerprint, uri=folder, seed=config.seed, lease=lease)
            output = step.work(inputs, workspace)
        artifact = Artifact(
            kind=name,
            uri=folder,
            digest=output.digest,
            fingerprint=fingerprint,
            run_id="",
            facts=output.facts.record(),
        )
        finished[name] = FinishedStep(artifact, time.process_time() - started)
    return finished


if __name__ == "__main__":
    main()

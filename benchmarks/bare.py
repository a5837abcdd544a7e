"""The steps' bare work, in one process and without Ray, Dagster or MLflow: what the pipeline's overhead is beside.

    python -m benchmarks.bare [section.key=value ...]

Runs the table of pipeline/dag.py in a plain loop on the digits preset. Prints one JSON line: CPU seconds by step.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from components.artifacts import Artifact
from components.store.lease import acquire_lease, keep_alive
from components.workspace import Workspace
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config
from pipeline.dag import dag_of


def main() -> None:
    """All steps in the order of the DAG."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _, seconds = run_steps(load_config("digits", sys.argv[1:]), Path(folder))
        print(json.dumps(seconds))


def run_steps(config: PipelineConfig, root: Path) -> tuple[dict[str, Artifact], dict[str, float]]:
    """Artifact and CPU seconds of each step; the artifacts go below `root`."""
    seconds: dict[str, float] = {}
    artifacts: dict[str, Artifact] = {}
    for name, step in dag_of(config).items():
        started = time.process_time()
        fingerprint = step.fingerprint(artifacts, config.seed)
        lease = acquire_lease(str(root / "leases" / name), wait_seconds=0, report=print)
        with keep_alive(lease):
            folder = str(root / name)
            workspace = Workspace(name=name, fingerprint=fingerprint, uri=folder, seed=config.seed, lease=lease)
            output = step.work({needed: artifacts[needed] for needed in step.inputs}, workspace)
        artifacts[name] = Artifact(
            kind=name,
            uri=folder,
            digest=output.digest,
            fingerprint=fingerprint,
            run_id="",
            facts=output.facts.record(),
        )
        seconds[name] = time.process_time() - started
    return artifacts, seconds


if __name__ == "__main__":
    main()

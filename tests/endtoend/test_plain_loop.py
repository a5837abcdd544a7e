"""The DAG without its orchestrator: a plain loop over the table of steps makes the same artifacts."""

import pytest

from benchmarks.tiny import OVERRIDES
from components.artifacts import Artifact
from components.store.lease import acquire_lease, keep_alive
from components.workspace import Workspace
from pipeline.config_files import load_config
from pipeline.dag import dag_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def run_dag(config, root) -> dict[str, Artifact]:
    """Every step in the order of the table, in this process: no orchestrator, no Ray, no MLflow, no memo."""
    artifacts: dict[str, Artifact] = {}
    for name, step in dag_of(config).items():
        uri, fingerprint = str(root / name), step.fingerprint(artifacts, config.seed)
        with keep_alive(acquire_lease(f"{uri}.lease", wait_seconds=0, report=print)) as lease:
            workspace = Workspace(name=name, fingerprint=fingerprint, uri=uri, seed=config.seed, lease=lease)
            output = step.work({needed: artifacts[needed] for needed in step.inputs}, workspace)
        artifacts[name] = Artifact(
            kind=name,
            uri=uri,
            digest=output.digest,
            fingerprint=fingerprint,
            run_id="",
            facts=output.facts.record(),
        )
    return artifacts


def test_a_plain_loop_makes_the_artifacts_of_the_pipeline(finished_run, tmp_path):
    artifacts = run_dag(load_config("digits", list(OVERRIDES)), tmp_path)
    assert {name: {artifact.digest} for name, artifact in artifacts.items()} == finished_run.digests()

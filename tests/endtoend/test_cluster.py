"""The whole pipeline beyond one machine: Ray on two nodes, artifacts on S3, MLflow on PostgreSQL."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from benchmarks.tiny import FITS
from components.artifacts import Artifact
from components.store import commits
from tests.endtoend.conftest import STEPS, Place

pytestmark = [pytest.mark.ray, pytest.mark.services, pytest.mark.slow]

SPREAD = ("resources.tokenizer.workers=2", "resources.tokenizer.cpus=1.6")
"""Two workers, of which a node of three CPUs has room for one: gradients and codebooks are averaged across nodes."""
SHORT_FITS = tuple(
    f"{fit}.training.{setting}" for fit in FITS for setting in ("updates=4", "evaluate_every=2", "checkpoint_every=2")
)


class RemoteRun(NamedTuple):
    """A finished run whose state is on servers."""

    place: Place
    root: str
    """Artifact root."""
    variables: dict[str, str]
    """Addresses and credentials in the driver's environment."""
    output: str

    def again(self) -> subprocess.CompletedProcess:
        """The same command."""
        return run_remotely(self.place, self.root, self.variables)


def run_remotely(place: Place, root: str, variables: dict[str, str]) -> subprocess.CompletedProcess:
    return place.run(f"artifact_root={root}", *SPREAD, *SHORT_FITS, **variables)


@pytest.fixture(scope="module")
def remote_run(tmp_path_factory, s3, mlflow_server, ray_cluster):
    """The pipeline, run by a driver that knows the servers by its environment variables alone."""
    variables = {**ray_cluster.environment, **s3.environment, "MLFLOW_TRACKING_URI": mlflow_server}
    place, root = Place(tmp_path_factory.mktemp("remote")), f"s3://{s3.bucket}/pipeline"
    result = run_remotely(place, root, variables)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        yield RemoteRun(place, root, variables, result.stdout)


def test_every_artifact_is_whole_on_s3_and_known_to_the_server(remote_run):
    client = MlflowClient(remote_run.variables["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], "tags.`vqvae2.step` != ''")
    made = {run.data.tags["vqvae2.step"]: Artifact.from_json(run.data.tags["vqvae2.artifact"]) for run in runs}
    assert set(made) == set(STEPS) and len(runs) == len(STEPS)
    for artifact in made.values():
        assert artifact.uri.startswith(remote_run.root) and commits.artifact_faults(artifact.uri, artifact.digest) == []
        for file in commits.read_manifest(artifact.uri)["files"]:
            commits.read_verified(artifact.uri, file)  # compares the SHA-256


def test_the_drivers_disk_has_only_pictures_the_orchestrators_state_and_no_unsent_figures(remote_run):
    runs = remote_run.place.folder / "runs"
    assert {path.name for path in runs.iterdir()} - {"unsent"} == {"dagster", "latest"}
    assert [path for path in (runs / "unsent").rglob("*") if path.is_file()] == []


def test_the_models_are_registered_on_the_server_and_promoted(remote_run):
    client = MlflowClient(remote_run.variables["MLFLOW_TRACKING_URI"])
    for name in ("digits-tokenizer", "digits-generator"):
        model = client.get_model_version_by_alias(name, "champion")
        assert set(model.aliases) == {"challenger", "champion"}
        assert client.get_run(model.run_id).info.status == "FINISHED"


def test_a_registered_model_is_used_from_where_the_server_keeps_it(remote_run):
    result = remote_run.place.pipeline(
        "sample", "models:/digits-generator@champion", "--count", "2", "--keep", "1", **remote_run.variables
    )
    assert result.returncode == 0, result.stderr
    assert len(list((remote_run.place.folder / "samples").glob("*-seed0.png"))) == 20


def test_a_second_run_does_no_work(remote_run):
    result = remote_run.again()
    assert result.returncode == 0, result.stderr
    assert "nothing to do" in result.stdout and "joining Ray" not in result.stdout


def test_both_nodes_worked_and_the_tokenizer_was_fitted_across_them(remote_run):
    """No node has the CPUs for both of its workers; the other four fits have one worker each."""
    assert "2 node(s), 6 CPUs" in remote_run.output
    workers = [actor for actor in actors_of(remote_run) if "TrainWorker" in actor["class"]]
    assert len(workers) == 6 and len({actor["node"] for actor in workers}) == 2


def actors_of(remote_run: RemoteRun) -> list[dict[str, str]]:
    """All actors, past and present, as a driver without this project on its path sees them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | remote_run.variables
    line = [sys.executable, "-c", ASK]
    result = subprocess.run(
        line, env=environment, cwd=remote_run.place.folder, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


ASK = """
import json, ray
ray.init(log_to_driver=False, logging_level="error")
actors = ray._private.state.actors().values()
print(json.dumps([{"class": actor["ActorClassName"], "node": actor["Address"]["NodeID"]} for actor in actors]))
"""

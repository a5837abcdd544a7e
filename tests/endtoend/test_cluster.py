"""The whole pipeline beyond one machine: Ray on two nodes, artifacts on S3, MLflow on PostgreSQL."""

import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from components.artifacts import Artifact
from components.store import commits
from tests.endtoend.conftest import Place

pytestmark = [pytest.mark.ray, pytest.mark.services, pytest.mark.slow]

STEPS = {"images", "tokenizer", "codes", "prior_top", "prior_bottom", "classifier", "judge", "generator", "evaluation"}
SPREAD = ("resources.tokenizer.workers=2", "resources.tokenizer.cpus=1.6")
"""Two workers of which a node of three CPUs holds one: their gradients and codebooks meet between the nodes."""


class Away(NamedTuple):
    """A finished run whose state is elsewhere."""

    place: Place
    root: str
    """Artifact root."""
    variables: dict[str, str]
    """All that the driver was told about where to work."""
    output: str

    def again(self) -> subprocess.CompletedProcess:
        """The same command."""
        return self.place.run(f"artifact_root={self.root}", *SPREAD, **self.variables)


@pytest.fixture(scope="module")
def away(tmp_path_factory, s3, mlflow_server, ray_cluster):
    """The pipeline, run by a driver that has these addresses and keys in its environment and nothing else."""
    variables = {**ray_cluster.environment, **s3.environment, "MLFLOW_TRACKING_URI": mlflow_server}
    place, root = Place(tmp_path_factory.mktemp("away")), f"s3://{s3.bucket}/pipeline"
    result = place.run(f"artifact_root={root}", *SPREAD, **variables)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        yield Away(place, root, variables, result.stdout)


def test_every_artifact_is_whole_on_s3_and_known_to_the_server(away):
    client = MlflowClient(away.variables["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], "tags.`vqvae2.step` != ''")
    made = {run.data.tags["vqvae2.step"]: Artifact.from_json(run.data.tags["vqvae2.artifact"]) for run in runs}
    assert set(made) == STEPS and len(runs) == len(STEPS)
    for artifact in made.values():
        assert artifact.uri.startswith(away.root) and commits.artifact_faults(artifact.uri, artifact.digest) == []
        for file in commits.read_manifest(artifact.uri)["files"]:
            commits.read_verified(artifact.uri, file)  # compares the SHA-256


def test_nothing_is_left_on_the_drivers_disk_but_pictures_and_the_orchestrators_state(away):
    assert {path.name for path in (away.place.folder / "runs").iterdir()} == {"dagster", "latest"}


def test_the_models_are_registered_on_the_server_and_promoted(away):
    client = MlflowClient(away.variables["MLFLOW_TRACKING_URI"])
    for name in ("digits-tokenizer", "digits-generator"):
        model = client.get_model_version_by_alias(name, "champion")
        assert set(model.aliases) == {"challenger", "champion"}
        assert client.get_run(model.run_id).info.status == "FINISHED"


def test_a_registered_model_is_used_from_where_the_server_keeps_it(away):
    result = away.place.pipeline(
        "sample", "models:/digits-generator@champion", "--count", "2", "--keep", "1", **away.variables
    )
    assert result.returncode == 0, result.stderr
    assert len(list((away.place.folder / "samples").glob("*-seed0.png"))) == 20


def test_a_second_run_does_no_work(away):
    result = away.again()
    assert result.returncode == 0, result.stderr
    assert "nothing to do" in result.stdout and "joining Ray" not in result.stdout


def test_both_nodes_worked_and_the_fit_of_the_tokenizer_spanned_them(away):
    """No node has the CPUs for both of its workers; the other four fits have one worker each."""
    assert "2 node(s), 6 CPUs" in away.output
    workers = [actor for actor in actors_of(away) if "TrainWorker" in actor["class"]]
    assert len(workers) == 6 and len({actor["node"] for actor in workers}) == 2


def actors_of(away: Away) -> list[dict[str, str]]:
    """Every actor that ever lived, as a driver without this project on its path hears of it."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | away.variables
    line = [sys.executable, "-c", ASK]
    result = subprocess.run(line, env=kept, cwd=away.place.folder, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


ASK = """
import json, ray
ray.init(log_to_driver=False, logging_level="error")
found = ray._private.state.actors().values()
print(json.dumps([{"class": one["ActorClassName"], "node": one["Address"]["NodeID"]} for one in found]))
"""

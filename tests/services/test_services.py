"""The store and the tracker with real servers."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from components.errors import StorageError
from components.store import commits, objects
from components.store.probes import check_writable
from tests.services.swift_server import ObjectStore
from tests.store.committed_files import stored_uri

pytestmark = pytest.mark.services


@pytest.fixture
def root(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """root(name): a URI in the bucket, with the S3 variables set in the environment."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return lambda name: f"s3://{s3.bucket}/{name}"


def test_a_saved_artifact_has_no_faults(root) -> None:
    folder = root("whole")
    digest = commits.save_artifact(folder, {"a.bin": b"a" * 1000, "deep/b.bin": b""}, {"rows": 1})
    assert commits.artifact_faults(folder, digest) == []
    assert commits.read_manifest(folder)["facts"] == {"rows": 1}
    assert objects.read_bytes(stored_uri(folder, "a.bin")) == b"a" * 1000


def test_missing_and_truncated_files_are_detected(root) -> None:
    folder = root("damaged")
    digest = commits.save_artifact(folder, {"gone.bin": b"1", "cut.bin": b"22"}, {})
    objects.delete(stored_uri(folder, "gone.bin"))
    objects.write_bytes(stored_uri(folder, "cut.bin"), b"2")
    faulty = [commits.name_of(fault.split(" ")[0]) for fault in commits.artifact_faults(folder, digest)]
    assert faulty == ["cut.bin", "gone.bin"]


def test_an_existing_object_is_not_created_again(root) -> None:
    uri = root("lease")
    assert objects.create_bytes(uri, b"first")
    assert not objects.create_bytes(uri, b"second")
    assert objects.read_bytes(uri) == b"first"


def test_a_missing_object_differs_from_a_failing_store(root) -> None:
    with pytest.raises(FileNotFoundError):
        objects.read_bytes(root("nothing-here"))


def test_a_wrong_secret_is_refused_with_advice(root, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.write_bytes(root("secret"), b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL and the credentials"):
        check_writable(root("secret"))


def test_a_missing_bucket_is_refused_with_advice(root) -> None:
    with pytest.raises(StorageError, match="Check the bucket's name"):
        check_writable("s3://no-such-bucket/artifacts")


def test_a_closed_port_is_refused_with_advice(root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL"):
        check_writable(root("closed"))


def test_a_deleted_folder_has_no_objects(root) -> None:
    commits.save_artifact(root("folder"), {"a": b"1", "b/c": b"2"}, {})
    objects.delete(root("folder"))
    assert objects.object_sizes(root("folder")) == {}


def test_a_local_copy_has_the_committed_bytes(root, tmp_path) -> None:
    commits.save_artifact(root("copy"), {"a/b.bin": b"content"}, {})
    assert (commits.local_copy(root("copy"), tmp_path) / "a/b.bin").read_bytes() == b"content"


def test_parquet_files_use_the_arrow_filesystem(root) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    fs, path = objects.arrow_filesystem(root("table.parquet"))
    table = pa.table({"code": list(range(1000))})
    parquet.write_table(table, path, filesystem=fs)
    assert parquet.read_table(path, filesystem=fs).equals(table)


def test_mlflow_stores_runs_in_postgres_and_artifacts_in_s3(mlflow_server: str, root, tmp_path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server)
    run = client.create_run(client.create_experiment("services"))
    client.log_metric(run.info.run_id, "loss", 0.5, step=3)
    client.log_text(run.info.run_id, "a report", "report.txt")
    assert run.info.artifact_uri.startswith(root("mlflow"))
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
    assert objects.read_bytes(f"{run.info.artifact_uri}/report.txt") == b"a report"


def test_mlflow_server_refuses_a_foreign_host_header(mlflow_server: str) -> None:
    request = urllib.request.Request(f"{mlflow_server}/api/2.0/mlflow/experiments/list", headers={"Host": "evil.test"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)


def test_servers_set_no_environment_variables(s3: ObjectStore, postgres: str) -> None:
    assert postgres.startswith("postgresql+psycopg2://")
    assert os.environ.get("AWS_ENDPOINT_URL") != s3.endpoint


def test_a_store_goes_to_other_processes(root) -> None:
    """Ray Train sends the file system of its checkpoints to its workers."""
    from ray import cloudpickle

    fs, path = cloudpickle.loads(cloudpickle.dumps(objects.arrow_filesystem(root("sent"))))
    objects.write_bytes(root("sent/file"), b"content")
    with fs.open_input_file(f"{path}/file") as file:
        assert file.read() == b"content"

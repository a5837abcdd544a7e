"""`doctor`: every requirement of a run, met and not met."""

import socket
import tempfile

import pytest

from pipeline.verbs import doctor
from pipeline.verbs.doctor import run_doctor


@pytest.fixture
def report(capsys):
    """report(source, overrides): (exit code, verdict and text by topic)."""

    def run(source, *overrides):
        code = run_doctor(source, overrides)
        lines = [
            line.split(maxsplit=1)
            for line in capsys.readouterr().out.splitlines()
            if line[:8].strip() in ("ok", "note", "problem")
        ]
        return code, {rest[:16].strip(): f"{verdict}: {rest[17:]}" for verdict, rest in lines}

    return run


def test_a_working_setup_has_no_problem_and_nothing_is_created(config_file, tmp_path, report):
    code, topics = report(config_file)
    assert code == 0 and not [text for text in topics.values() if text.startswith("problem")]
    assert topics["MLflow"] == f"ok: SQLite in {tmp_path}/state/mlflow.db (made by the first run)"
    assert topics["artifact store"] == f"ok: {tmp_path}/artifacts is writable"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_wrong_config_is_a_problem(config_file, report):
    code, topics = report(config_file, "seed=x", "vqvae.decay=2")
    assert code == 4 and topics["config"].startswith("problem:") and "2 faults" in topics["config"]


def test_a_store_that_cannot_be_written_is_a_problem(config_file, tmp_path, report):
    (tmp_path / "file").write_text("")
    code, topics = report(config_file, f"artifact_root={tmp_path}/file/artifacts")
    assert code == 4 and "Check that the folder exists and is writable" in topics["artifact store"]


def test_unreachable_servers_are_problems_and_passwords_are_hidden(config_file, report, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    code, topics = report(config_file)
    assert code == 4 and "http://***@127.0.0.1:9 does not answer" in topics["MLflow"]
    assert topics["Ray"].startswith("problem: nothing answers at RAY_ADDRESS=127.0.0.1:9")
    assert "secret" not in str(topics)


def test_a_store_that_does_not_answer_is_reported_quickly(config_file, report, monkeypatch):
    monkeypatch.setattr(doctor, "STORE_SECONDS", 0.5)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        code, topics = report(config_file, "artifact_root=s3://bucket/x")
    assert code == 4 and "gave no answer within" in topics["artifact store"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "problem: RAY_ADDRESS must not be a Ray Client address"),
        ("auto", "note: RAY_ADDRESS=auto is not host:port"),
    ],
)
def test_unusual_addresses_of_ray_are_reported(config_file, report, monkeypatch, address, message):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert report(config_file)[1]["Ray"].startswith(message)


def test_a_cluster_that_answers_is_accepted(config_file, report, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as head:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{head.getsockname()[1]}")
        assert "answers; all fits at the same time take" in report(config_file)[1]["Ray"]


def test_missing_gpus_are_a_problem(config_file, report, monkeypatch):
    monkeypatch.setattr(doctor, "local_gpus", lambda: 1)
    assert (
        "ask for 2 GPUs, this machine has 1" in report(config_file, "resources.prior={workers: 2, gpus: 1}")[1]["Ray"]
    )


def test_packages_are_compared_with_their_pins(tmp_path, monkeypatch, report, config_file):
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["Torch>=2", "PyYAML", "not_there[x]>=1"]\n')
    (tmp_path / "constraints.txt").write_text("# pins\ntorch==1.0\nPyYAML==0.1\n")
    monkeypatch.setattr(doctor, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(doctor, "_version", {"torch": "1.0+cu130", "pyyaml": "0.2"}.get)
    assert report(config_file)[0] == 4
    findings = [str(finding) for finding in doctor._packages()]
    assert (
        "not-there must be installed" in findings[0]
        and "pyyaml 0.2 (pinned 0.1)" in findings[1]
        and "torch" not in findings[1]
    )


def test_all_packages_are_installed_here(report, config_file):
    assert report(config_file)[1]["packages"].startswith(("ok:", "note: other versions"))


def test_little_free_space_gets_a_note(monkeypatch, report, config_file):
    monkeypatch.setattr(doctor, "COMFORTABLE_BYTES", {"memory": 1e18, "disk": 1e18, "shm": 1e18})
    code, topics = report(config_file)
    assert code == 0 and all(
        topics[name].startswith("note:") and "little" in topics[name] for name in ("memory", "disk", "shm")
    )


def test_a_temporary_folder_with_a_long_path_is_named(tmp_path, config_file, monkeypatch, capsys):
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    run_doctor(config_file, [])
    assert f"TMPDIR={deep} is too long for Ray's sockets" in capsys.readouterr().out


def test_variables_in_the_way_are_named(config_file, monkeypatch, capsys):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("HOME", "/nonexistent")
    run_doctor(config_file, [])
    said = capsys.readouterr().out
    assert "HTTPS_PROXY=http://proxy:3128 is set" in said and "HOME=/nonexistent cannot be written" in said

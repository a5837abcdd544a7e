"""`status`: finished steps, holders of leases, and that it creates nothing."""

import pytest

from components.config import to_plain
from components.store import lease
from components.store.lease import acquire_lease, keep_alive
from pipeline.config_files import load_config, parse_config
from pipeline.session import look_up_memo
from pipeline.verbs import status
from pipeline.verbs.status import print_status


@pytest.fixture
def short_renewals(monkeypatch):
    """Leases are renewed every 0.1 seconds."""
    for module in (lease, status):
        monkeypatch.setattr(module, "RENEW_SECONDS", 0.1)


def test_a_pipeline_that_has_not_run_is_reported(config_file, tmp_path, capsys):
    assert print_status(config_file, ["seed=1"]) == 0
    assert (
        capsys.readouterr().out
        == f"nothing has run yet with {config_file}: python -m pipeline run {config_file} --set seed=1\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_finished_pipeline_is_shown(finished, capsys):
    source, config, session = finished
    print_status(source, [])
    out = capsys.readouterr().out
    for name, result in session.memo.results.items():
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert "done" in line and result.artifact.digest[:12] in line and f"{result.artifact.run_id} (finished)" in line
    assert "models:/finished-generator/1" in out and "models:/finished-tokenizer/1" in out and "challenger" in out
    assert config.artifact_root in out and "mlflow ui --backend-store-uri" in out


def test_a_failed_gate_is_shown(finished, capsys):
    print_status(finished[0], ["gates.reconstruction_error=0.01"])
    assert (
        "failed: reconstruction_error: held-out mean squared error is 0.05, beyond the limit of 0.01"
        in capsys.readouterr().out
    )


def test_the_holder_of_a_lease_is_shown(finished, short_renewals, capsys):
    source, config, _ = finished
    changed = parse_config(to_plain(config) | {"codes": {"batch_size": 2}}, "a test")
    memo = look_up_memo(changed)
    fingerprint = memo.fingerprint(
        memo.steps["codes"], {name: finished[2].artifact(name) for name in ("images", "tokenizer")}
    )
    held = acquire_lease(memo.lease_folder(memo.steps["codes"], fingerprint), wait_seconds=0, report=print)
    with keep_alive(held):
        print_status(source, ["codes.batch_size=2"])
        assert f"at work: {held.holder}, since" in capsys.readouterr().out
    print_status(source, ["codes.batch_size=2"])
    assert held.holder not in capsys.readouterr().out


def test_an_interrupted_holder_is_shown(finished, short_renewals, capsys):
    source, _, session = finished
    changed = load_config(source, ["judge.hidden=8"])
    memo = look_up_memo(changed)
    fingerprint = memo.fingerprint(memo.steps["judge"], {"images": session.artifact("images")})
    held = acquire_lease(memo.lease_folder(memo.steps["judge"], fingerprint), wait_seconds=0, report=print)
    print_status(source, ["judge.hidden=8"])
    assert f"interrupted: {held.holder} is silent" in capsys.readouterr().out

"""The command line: its imports, exit codes and error messages."""

import subprocess
import sys

import pytest

from components.errors import (
    ConfigError,
    ExitCode,
    LeaseHeld,
    MissingArtifact,
    StorageError,
    TooFewResources,
    TrackingError,
    UnknownModel,
    UsageError,
    exit_code_of,
)
from pipeline import cli

VERBS = [
    "plan",
    "validate",
    "run",
    "status",
    "ui",
    "doctor",
    "sample",
    "reconstruct",
    "lineage",
    "encode",
    "verify",
    "show",
]


def test_help_imports_no_large_package():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "argparse" in imported
    assert not imported & {"torch", "ray", "mlflow", "dagster", "pydantic", "numpy", "pyarrow", "rich", "yaml"}
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_exit_codes(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0 and all(f"\n  {code.value:<4} {code.meaning}\n" in out for code in ExitCode)


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["sample", "m", "--count", "few"]])
def test_a_wrong_command_line_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == ExitCode.USAGE and "usage:" in capsys.readouterr().err


def test_validate_reports_a_valid_config(config_file, capsys):
    assert cli.main(["validate", config_file]) == ExitCode.DONE
    assert "is valid (digest" in capsys.readouterr().out


def test_validate_reports_all_faults_without_a_traceback(config_file, capsys):
    assert cli.main(["validate", config_file, "--set", "seed=x", "--set", "vqvae.decay=2"]) == ExitCode.USAGE
    message = capsys.readouterr().err
    assert (
        "2 faults" in message
        and "seed:" in message
        and "decay must lie in (0, 1)" in message
        and "Traceback" not in message
    )


def test_a_traceback_is_shown_on_request(config_file):
    with pytest.raises(ConfigError):
        cli.main(["validate", config_file, "--set", "seed=x", "--traceback"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x", ["y"]), 2),
        (UsageError(), 2),
        (UnknownModel(), 2),
        (MissingArtifact(), 2),
        (TrackingError(), 4),
        (StorageError(), 4),
        (ConnectionRefusedError(), 4),
        (TooFewResources(), 4),
        (LeaseHeld(), 5),
        (RuntimeError(), 1),
    ],
)
def test_errors_have_exit_codes(error, code):
    assert exit_code_of(error) == code


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "continues from the last checkpoint"),
        (OSError("full"), 1, "error: full"),
        (RuntimeError(), 1, "error: RuntimeError"),
    ],
)
def test_a_failing_verb_prints_its_error(monkeypatch, capsys, error, code, message):
    def fail(options):
        raise error

    monkeypatch.setattr(cli, "_doctor", fail)
    assert cli.main(["doctor"]) == code
    assert message in capsys.readouterr().err


def test_a_closed_output_pipe_is_no_error():
    command = f"{sys.executable} -m pipeline plan digits --offline | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0" and not done.stderr

"""The command line: what it imports, what it returns, what it says when something is wrong."""

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


def test_help_imports_nothing_heavy():
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


def test_validate_says_so(config_file, capsys):
    assert cli.main(["validate", config_file]) == ExitCode.DONE
    assert "is valid (digest" in capsys.readouterr().out


def test_validate_tells_all_faults_without_a_traceback(config_file, capsys):
    assert cli.main(["validate", config_file, "--set", "seed=x", "--set", "vqvae.decay=2"]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "2 faults" in said and "seed:" in said and "decay must lie in (0, 1)" in said and "Traceback" not in said


def test_a_traceback_is_shown_when_asked_for(config_file):
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
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "continues from the last checkpoint"),
        (OSError("full"), 1, "error: full"),
        (RuntimeError(), 1, "error: RuntimeError"),
    ],
)
def test_a_verb_that_fails_says_what_to_do(monkeypatch, capsys, error, code, said):
    def fail(options):
        raise error

    monkeypatch.setattr(cli, "_doctor", fail)
    assert cli.main(["doctor"]) == code
    assert said in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m pipeline plan digits --offline | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0" and not done.stderr

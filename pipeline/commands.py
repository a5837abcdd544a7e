"""Commands that are printed for a person to paste into a shell."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def pipeline_command(verb: str, source: str, overrides: Sequence[str] = (), *more: str, python: str = "python") -> str:
    """`python -m pipeline <verb> <source> --set ...`, quoted where a shell would take words apart."""
    settings = [word for override in overrides for word in ("--set", override)]
    return shlex.join([python, "-m", "pipeline", verb, source, *settings, *more])


def mlflow_ui_command(uri: str) -> str:
    """The command that serves MLflow's UI on a database."""
    return shlex.join([this_python(), "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", "5000"])


def this_python() -> str:
    """This Python as one would type it: a relative path if it is below the current folder."""
    inside = Path(sys.executable).is_relative_to(Path.cwd())
    return os.path.relpath(sys.executable) if inside else sys.executable


def nothing_has_run(source: str, overrides: Sequence[str] = ()) -> str:
    """What to say, and the command to type, where a verb needs the results of a run."""
    return f"nothing has run yet with {source}: {pipeline_command('run', source, overrides)}"

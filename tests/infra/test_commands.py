"""The program of each container knows every option on its command line."""

import click
import dagster._cli
import mlflow.cli
import pytest
import ray.scripts.scripts
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import dagster_webserver
from mlflow.server.security_utils import is_allowed_host_header

from tests.infra.documents import Command, commands

PROGRAMS: dict[str, click.Command] = {
    "dagster": dagster._cli.create_dagster_cli(),
    "dagster-daemon": create_dagster_daemon_cli(),
    "dagster-webserver": dagster_webserver,
    "mlflow": mlflow.cli.cli,
    "ray": ray.scripts.scripts.cli,
}
CHECKED = [command for command in commands() if set(command.words) & set(PROGRAMS)]


@pytest.mark.parametrize("command", CHECKED, ids=lambda command: command.where)
def test_the_program_knows_every_option(command: Command) -> None:
    start = next(index for index, word in enumerate(command.words) if word in PROGRAMS)
    program: click.Command = PROGRAMS[command.words[start]]
    rest = list(command.words[start + 1 :])
    while isinstance(program, click.Group):
        program = program.commands[rest.pop(0)]
    known = {option for parameter in program.params for option in parameter.opts + parameter.secondary_opts}
    assert {word.split("=")[0] for word in rest} <= known


def test_all_ten_commands_are_checked() -> None:
    assert len(CHECKED) == 10


def test_mlflow_allows_the_host_names_in_use() -> None:
    for command in CHECKED:
        if "mlflow" in command.words:
            (allowed,) = (word.split("=")[1] for word in command.words if word.startswith("--allowed-hosts="))
            assert is_allowed_host_header(allowed.split(","), "mlflow:5000")
            assert is_allowed_host_header(allowed.split(","), "localhost:5000")
            assert not is_allowed_host_header(allowed.split(","), "evil.test")

"""Printed commands can be pasted: a shell takes them apart into the words that were meant."""

import shlex

import pytest

from pipeline import cli
from pipeline.commands import mlflow_ui_command, nothing_has_run, pipeline_command


@pytest.mark.parametrize("text", ["my photos #2", "it's", "$HOME", "a;b", "*", "~", "0 3 * * *", "é\n"])
def test_a_printed_command_has_the_words_that_were_typed(text):
    command = pipeline_command("run", f"{text}.yaml", [f"images.uri={text}"], "--offline")
    assert shlex.split(command)[3:] == ["run", f"{text}.yaml", "--set", f"images.uri={text}", "--offline"]
    assert shlex.split(nothing_has_run(f"{text}.yaml", [f"name={text}"]).split(": ", 1)[1])[-1] == f"name={text}"
    assert shlex.split(mlflow_ui_command(f"sqlite:///{text}"))[5] == f"sqlite:///{text}"


def test_status_prints_a_command_that_keeps_spaces(capsys, tmp_path):
    assert cli.main(["status", "digits", "--set", f"state={tmp_path}/a b", "--set", "name=x"]) == 0
    words = shlex.split(capsys.readouterr().out.split(": ", 1)[1])
    assert words[3:] == ["run", "digits", "--set", f"state={tmp_path}/a b", "--set", "name=x"]

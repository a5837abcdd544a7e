"""Former names of settings: accepted in files and on the command line, with a note."""

import pytest
import yaml

from components.errors import ConfigError
from pipeline.config_files import RENAMED, load_config, use_current_names


def load(tree, tmp_path, *overrides):
    """The config that a file with `tree` and the overrides give."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_config(str(path), overrides)


def test_a_file_may_use_a_former_name(tree, tmp_path, capsys):
    config = load(tree | {"codes": {"rows_a_shard": 8, "rows_a_wave": 16}}, tmp_path)
    assert (config.codes.rows_per_shard, config.codes.rows_per_wave) == (8, 16)
    assert "the setting codes.rows_a_shard is called codes.rows_per_shard now" in capsys.readouterr().err


def test_an_override_may_use_a_former_name(tree, tmp_path, capsys):
    assert load(tree, tmp_path, "codes.rows_a_shard=8").codes.rows_per_shard == 8
    assert "codes.rows_per_shard now" in capsys.readouterr().err


def test_a_file_over_a_base_may_use_a_former_name(tmp_path):
    assert load({"base": "digits", "codes": {"rows_a_shard": 8}}, tmp_path).codes.rows_per_shard == 8


def test_a_file_with_both_names_is_refused(tree, tmp_path):
    with pytest.raises(ConfigError, match=r"codes.rows_a_shard is called rows_per_shard now, and the file has both"):
        load(tree | {"codes": {"rows_a_shard": 8, "rows_per_shard": 8}}, tmp_path)


def test_a_whole_section_may_have_a_former_name():
    tree = {"share": {"workers": 2}}
    use_current_names(tree, "encode")
    assert tree == {"resources": {"workers": 2}}


def test_both_names_of_a_setting_lie_in_one_section():
    assert all(former.rpartition(".")[0] == current.rpartition(".")[0] for former, current in RENAMED.items())

"""Config files: bases, overrides, refused files, and former names of settings, which are accepted with a note."""

import pytest
import yaml

from components.config import to_plain
from components.errors import ConfigError
from pipeline import config_files
from pipeline.config_files import RENAMED, load_config, preset_names, use_current_names


def load(tree, tmp_path, *overrides):
    """The config of a file with `tree`, and the overrides."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_config(str(path), overrides)


def load_faults(tree, tmp_path, *overrides):
    """The faults that are reported for a file with `tree`, and the overrides."""
    with pytest.raises(ConfigError) as caught:
        load(tree, tmp_path, *overrides)
    return caught.value.faults


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


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name):
    overrides = [] if name == "digits" else ["images.uri=s3://bucket/images"]
    assert load_config(name, overrides).level_names[0] == "top"


def test_overrides_are_typed(tree, tmp_path):
    overrides = [
        "vqvae.beta=0.5",
        "vqvae.levels.1.codebook_size=16",
        "orchestration.schedule=* 3 * * *",
        "evaluation.shares=[1, 0.1]",
        "vqvae.training.learning_rate=1e-3",
    ]
    config = load(tree, tmp_path, *overrides)
    assert config.vqvae.beta == 0.5 and config.vqvae.levels[1].codebook_size == 16
    assert config.orchestration.schedule == "* 3 * * *" and config.evaluation.shares == (1.0, 0.1)
    assert config.vqvae.training.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vqvae.beta", "an override must read section.key=value, got 'vqvae.beta'"),
        ("=3", "an override must read section.key=value"),
        ("vqvae.levels.7.stride=2", "vqvae.levels.7.stride: there is no such setting"),
        ("name.first=x", "name.first: there is no such setting"),
        ("vqvae.beta=[", "vqvae.beta: "),
        ("vqvae.betta=1", "vqvae.betta: no such setting"),
        ("seed=many", "seed: input should be a valid integer"),
    ],
)
def test_a_wrong_override_is_reported(tree, tmp_path, override, message):
    assert message in "\n".join(load_faults(tree, tmp_path, override))


def test_all_wrong_overrides_are_reported_together(tree, tmp_path):
    assert len(load_faults(tree, tmp_path, "a", "vqvae.levels.9.stride=1")) == 2


def test_a_file_gives_only_what_differs_from_its_base(tree, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "derived.yaml").write_text("base: base.yaml\nname: mine\npriors: {top: {layers: 3}}\n")
    config = load_config(str(tmp_path / "derived.yaml"))
    assert (config.name, config.priors["top"].layers, config.priors["top"].hidden) == ("mine", 3, 8)


def test_a_preset_can_be_the_base(tmp_path):
    (tmp_path / "derived.yaml").write_text("base: digits\nname: mine\n")
    derived, digits = load_config(str(tmp_path / "derived.yaml")), load_config("digits")
    assert to_plain(derived) == to_plain(digits) | {"name": "mine"}


def test_a_circular_base_is_reported(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"base must not lead back to itself: .*a.yaml -> .*b.yaml -> .*a.yaml"):
        load_config(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "must be YAML"),
        ("- a", "must be a mapping of sections, got a list"),
        ("", "must be a mapping of sections, got nothing"),
    ],
)
def test_a_file_that_is_not_a_config_is_reported(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(tmp_path / "bad.yaml"))


def test_a_file_in_another_encoding_is_reported(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="line 1: must be UTF-8, got byte 0xe9"):
        load_config(str(tmp_path / "bad.yaml"))


def test_a_missing_file_is_reported_with_the_presets():
    with pytest.raises(ConfigError, match=r"must be a preset \(.*digits.*\) or a YAML file, found neither"):
        load_config("nowhere.yaml")


# --- settings that follow the size of the images ----------------------------------------------------------------------

BY_SIZE = {8: {"vqvae": {"hidden": 4}}, 16: {"vqvae": {"hidden": 8}}, 32: {"vqvae": {"hidden": 32}}}


@pytest.mark.parametrize(("size", "hidden"), [(16, 8), (24, 8), (32, 32), (64, 32)])
def test_settings_follow_the_largest_listed_size_that_is_not_above(tree, tmp_path, size, hidden):
    assert load(tree | {"by_image_size": BY_SIZE}, tmp_path, f"images.image_size={size}").vqvae.hidden == hidden


def test_images_smaller_than_all_listed_sizes_keep_the_settings_of_the_file(tree, tmp_path):
    assert load(tree | {"by_image_size": {64: {"vqvae": {"hidden": 4}}}}, tmp_path).vqvae.hidden == 16


def test_explicit_settings_win_over_those_for_a_size(tree, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tree | {"by_image_size": BY_SIZE}))
    derived = {"base": "base.yaml", "images": {"image_size": 32}, "vqvae": {"residual_layers": 1}}
    assert load(derived, tmp_path).vqvae.hidden == 32
    assert load(derived, tmp_path, "vqvae.hidden=5").vqvae.hidden == 5
    derived["vqvae"]["hidden"] = 6
    assert load(derived, tmp_path).vqvae.hidden == 6


@pytest.mark.parametrize("wrong", [[1], {"small": {}}, {64: 3}])
def test_a_table_of_sizes_of_another_form_is_reported(tree, tmp_path, wrong):
    assert (
        "by_image_size must map sizes in pixels to settings"
        in load_faults(tree | {"by_image_size": wrong}, tmp_path)[0]
    )


def test_settings_for_a_size_are_checked_as_all_others(tree, tmp_path):
    assert load_faults(tree | {"by_image_size": {16: {"vqvae": {"hiden": 8}}}}, tmp_path)[0].startswith("vqvae.hiden: ")


# --- GPUs where there are any -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [(0, {"tokenizer": 0, "codes": 0}), (1, {"tokenizer": 0, "codes": 0.25}), (8, {"tokenizer": 1, "codes": 1})],
)
def test_auto_takes_the_gpus_of_this_machine(tree, tmp_path, monkeypatch, gpus, expected):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(config_files, "local_gpus", lambda: gpus)
    resources = {"tokenizer": {"workers": 2, "gpus": "auto"}, "codes": {"workers": 4, "gpus": "auto"}, "prior": {}}
    config = load(tree | {"resources": resources}, tmp_path)
    assert {name: getattr(config.resources, name).gpus for name in expected} == expected
    assert config.resources.prior.gpus == 0
    assert load(tree | {"resources": resources}, tmp_path, "resources.codes.gpus=0.5").resources.codes.gpus == 0.5


def test_auto_is_none_on_a_cluster_and_says_so(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(config_files, "local_gpus", lambda: 8)
    assert load(tree | {"resources": {"prior": {"gpus": "auto"}}}, tmp_path).resources.prior.gpus == 0
    assert "gpus: auto is 0 on a cluster" in capsys.readouterr().err


def test_a_config_that_asks_for_no_gpus_does_not_look_for_them(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(config_files, "local_gpus", lambda: 1 / 0)
    assert load(tree, tmp_path).resources.prior.gpus == 0


def test_gpus_of_another_form_are_reported(tree, tmp_path):
    assert load_faults(tree | {"resources": {"prior": {"gpus": "all"}}}, tmp_path)[0].startswith(
        "resources.prior.gpus: "
    )

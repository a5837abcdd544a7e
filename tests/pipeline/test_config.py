"""The config: what is right is typed, what is wrong is told at once, all of it."""

import pytest
import yaml

from components.config import to_plain
from components.errors import ConfigError
from pipeline.config import config_digest, flatten
from pipeline.config_files import load_config, parse_config, preset_names


def faults(tree, overrides=(), folder=None):
    """Everything that is said against a config."""
    with pytest.raises(ConfigError) as caught:
        if folder is None:
            parse_config(tree, "a test")
        else:
            path = folder / "config.yaml"
            path.write_text(yaml.safe_dump(tree))
            load_config(str(path), overrides)
    return "\n".join(caught.value.faults)


def loaded(tree, overrides, folder):
    """The config in a file, with overrides."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_config(str(path), overrides)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name):
    overrides = [] if name == "digits" else ["images.uri=s3://bucket/images"]
    assert load_config(name, overrides).level_names[0] == "top"


def test_all_faults_are_told_at_once(tree):
    tree["images"]["image_size"] = "wide"
    tree["vqvae"]["hiden"] = 3
    tree["classifier"]["dropout"] = 1.5
    del tree["judge"]
    said = faults(tree)
    for line in (
        "images.image_size:",
        "vqvae.hiden: no such setting (got 3)",
        "dropout must lie in [0, 1), got 1.5",
        "judge: is required",
    ):
        assert line in said


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("images.channels", 2, "images.channels: input should be 1 or 3, got 2"),
        ("images.augment.copies", 1.5, "images.augment.copies: input should be a valid integer"),
        ("priors.top.training.updates", None, "priors.top.training.updates:"),
        ("vqvae.levels", "top", "vqvae.levels:"),
        ("gates", [], "gates:"),
        ("unknown", 1, "unknown: no such setting (got 1)"),
        ("priors.top.training.speed", 1, "priors.top.training.speed: no such setting"),
        ("orchestration", {"schedule": "every day"}, "schedule must be a cron line like '0 3 * * *', got 'every day'"),
        ("name", "a b", "name must be made of letters"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(tree, place, value, said):
    *path, last = place.split(".")
    node = tree
    for part in path:
        node = node.setdefault(part, {})
    node[last] = value
    assert said in faults(tree)


def test_sections_that_do_not_fit_each_other_are_told_together(tree):
    tree["images"]["image_size"] = 20
    tree["judge"]["seed"] = 1
    tree["priors"] = {"top": tree["priors"]["top"], "middle": tree["priors"]["bottom"]}
    said = faults(tree)
    for line in (
        "priors must have one entry a level ['top', 'bottom']",
        "got 20 for 8 ('top')",
        "judge.seed must differ from classifier.seed, both are 1",
    ):
        assert line in said


def test_overrides_are_typed(tree, tmp_path):
    overrides = [
        "vqvae.beta=0.5",
        "vqvae.levels.1.codebook_size=16",
        "orchestration.schedule=* 3 * * *",
        "evaluation.shares=[1, 0.1]",
        "vqvae.training.learning_rate=1e-3",
    ]
    config = loaded(tree, overrides, tmp_path)
    assert config.vqvae.beta == 0.5 and config.vqvae.levels[1].codebook_size == 16
    assert config.orchestration.schedule == "* 3 * * *" and config.evaluation.shares == (1.0, 0.1)
    assert config.vqvae.training.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("override", "said"),
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
def test_a_wrong_override_is_told(tree, tmp_path, override, said):
    assert said in faults(tree, [override], tmp_path)


def test_all_wrong_overrides_are_told_at_once(tree, tmp_path):
    assert len(faults(tree, ["a", "vqvae.levels.9.stride=1"], tmp_path).splitlines()) == 2


def test_a_file_gives_only_what_differs_from_its_base(tree, tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "own.yaml").write_text("base: base.yaml\nname: mine\npriors: {top: {layers: 3}}\n")
    config = load_config(str(tmp_path / "own.yaml"))
    assert (config.name, config.priors["top"].layers, config.priors["top"].hidden) == ("mine", 3, 8)


def test_a_preset_can_be_the_base(tmp_path):
    (tmp_path / "own.yaml").write_text("base: digits\nname: mine\n")
    own, digits = load_config(str(tmp_path / "own.yaml")), load_config("digits")
    assert to_plain(own) == to_plain(digits) | {"name": "mine"}


def test_a_base_that_leads_back_is_told(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"base must not lead back to itself: .*a.yaml -> .*b.yaml -> .*a.yaml"):
        load_config(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [", "must be YAML"), ("- a", "must be a mapping of sections, got list"), ("", "must be a mapping")],
)
def test_a_file_that_is_no_config_is_told(tmp_path, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_config(str(tmp_path / "bad.yaml"))


def test_a_file_in_another_encoding_is_told(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="must be YAML"):
        load_config(str(tmp_path / "bad.yaml"))


def test_a_missing_file_names_the_presets():
    with pytest.raises(ConfigError, match=r"must be a preset \(.*digits.*\) or a YAML file, found neither"):
        load_config("nowhere.yaml")


def test_the_tree_of_a_config_is_read_back_equal(tree):
    config = parse_config(tree, "a test")
    assert parse_config(to_plain(config), "its tree") == config


def test_the_digest_leaves_out_where_and_on_what_it_runs(tree):
    digest = config_digest(parse_config(tree, "a test"))
    outside = {
        "artifact_root": "s3://b/x",
        "state": "s",
        "resources": {"prior": {"workers": 2}},
        "orchestration": {"retries": 0},
    }
    assert config_digest(parse_config(tree | outside | {"gates": {"reconstruction_error": 1.0}}, "a test")) == digest
    assert config_digest(parse_config(tree | {"seed": 1}, "a test")) != digest


def test_infinite_numbers_are_refused(tree):
    tree["vqvae"]["beta"] = float("inf")
    assert "vqvae.beta" in faults(tree)


def test_flat_names_every_leaf():
    assert flatten({"a": {"b": 1, "c": [2, {"d": 3}]}}) == {"a.b": 1, "a.c.0": 2, "a.c.1.d": 3}


def test_a_judge_is_fitted_here(tree):
    tree["judge"]["program"] = "own.pt2"
    tree["classifier"]["program"] = "models:/own/1"
    assert "judge.program must be null, got 'own.pt2': measures need the features" in faults(tree)

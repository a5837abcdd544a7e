"""The config: valid values are typed, and all faults are reported together."""

import pytest
import torch

from components.classifier import step as classifier_step
from components.classifier.config import LARGEST_OFFSET
from components.config import to_plain
from components.errors import ConfigError
from components.training import loop
from pipeline.config import LARGEST_SEED, config_digest, flatten
from pipeline.config_files import parse_config


def faults(tree):
    """The faults that are reported for a config, one per line."""
    with pytest.raises(ConfigError) as caught:
        parse_config(tree, "a test")
    return "\n".join(caught.value.faults)


def test_all_faults_are_reported_together(tree):
    tree["images"]["image_size"] = "wide"
    tree["vqvae"]["hiden"] = 3
    tree["classifier"]["dropout"] = 1.5
    del tree["judge"]
    message = faults(tree)
    for line in (
        "images.image_size:",
        "vqvae.hiden: no such setting (got 3)",
        "dropout must lie in [0, 1), got 1.5",
        "judge: is required",
    ):
        assert line in message


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("images.channels", 2, "images.channels: input should be 1 or 3, got 2"),
        ("images.augment.copies", 1.5, "images.augment.copies: input should be a valid integer"),
        ("priors.top.training.updates", None, "priors.top.training.updates:"),
        ("vqvae.levels", "top", "vqvae.levels:"),
        ("gates", [], "gates:"),
        ("unknown", 1, "unknown: no such setting (got 1)"),
        ("priors.top.training.speed", 1, "priors.top.training.speed: no such setting"),
        ("orchestration", {"schedule": "every day"}, "schedule must be a cron line of five fields"),
        ("name", "a b", "name must be made of letters"),
    ],
)
def test_a_wrong_value_is_reported_with_its_setting(tree, setting, value, message):
    *path, last = setting.split(".")
    node = tree
    for part in path:
        node = node.setdefault(part, {})
    node[last] = value
    assert message in faults(tree)


def test_conflicts_between_sections_are_reported_together(tree):
    tree["images"]["image_size"] = 20
    tree["judge"]["seed"] = 1
    tree["priors"] = {"top": tree["priors"]["top"], "middle": tree["priors"]["bottom"]}
    message = faults(tree)
    for line in (
        "priors must have one entry per level ['top', 'bottom']",
        "got 20 for 8 ('top')",
        "judge.seed must differ from classifier.seed, both are 1",
    ):
        assert line in message


def test_a_config_survives_the_round_trip_through_plain_values(tree):
    config = parse_config(tree, "a test")
    assert parse_config(to_plain(config), "its tree") == config


def test_the_digest_ignores_execution_settings(tree):
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


def test_flatten_names_every_leaf():
    assert flatten({"a": {"b": 1, "c": [2, {"d": 3}]}}) == {"a.b": 1, "a.c.0": 2, "a.c.1.d": 3}


def test_a_program_as_judge_is_refused(tree):
    tree["judge"]["program"] = "own.pt2"
    tree["classifier"]["program"] = "models:/own/1"
    assert "judge.program must be null, got 'own.pt2': measures need the features" in faults(tree)


def test_guidance_needs_label_dropout_in_every_prior(tree):
    tree["generator"] = {"guidance": 1.25}
    tree["priors"]["top"] = tree["priors"]["top"] | {"label_dropout": 0.1}
    assert "got 1.25 with none for ['bottom']: guidance draws without the class too" in faults(tree)
    tree["priors"]["bottom"] = tree["priors"]["bottom"] | {"label_dropout": 0.1}
    assert parse_config(tree, "a test").generator.sampling.guidance == 1.25


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63, 2**64])
def test_a_seed_that_fits_cannot_take_is_reported(tree, seed):
    assert f"seed must lie in 0 .. 4294967295 (2^32 - 1), got {seed}" in faults(tree | {"seed": seed})
    assert "classifier: seed must lie in 0 .. 9999" in faults(
        tree | {"classifier": tree["classifier"] | {"seed": seed}}
    )


def test_torch_takes_whatever_is_computed_of_the_largest_seeds():
    seed = LARGEST_SEED + classifier_step.SEED_STRIDE * LARGEST_OFFSET
    torch.manual_seed((seed * loop.SEED_STRIDE + 10_000_000) * loop.RANK_STRIDE + loop.RANK_STRIDE - 1)

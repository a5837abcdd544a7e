"""Stored models: loaded as they were packed, readable when fields are added later; errors name what is wrong."""

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from components.classifier.config import ClassifierArchitecture, ClassifierConfig
from components.classifier.stored import (
    ClassifierDescription,
    describe_classifier,
    load_classifier,
    pack_classifier,
    pack_program,
)
from components.config import TrainingConfig
from components.generator.stored import load_generator
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.priors.sampler import Sampler
from components.priors.stored import PriorDescription, describe_prior, load_prior, pack_prior
from components.store import weights
from components.tokenizer.config import LevelConfig, VQVAEConfig
from components.tokenizer.quantizers import QUANTIZERS
from components.tokenizer.stored import TokenizerDescription, describe_tokenizer, load_tokenizer, pack_tokenizer

TRAINING = TrainingConfig(updates=1, batch_size=1)
LEVELS = tuple(LevelConfig(name=name, stride=stride, codebook_size=8) for name, stride in (("top", 8), ("bottom", 4)))
TOKENIZER = TokenizerDescription(
    architecture=VQVAEConfig(levels=LEVELS, hidden=8, residual_hidden=4, training=TRAINING), channels=1, image_size=16
)
PRIOR = PriorDescription(
    level="bottom",
    architecture=PriorConfig(
        hidden=8, residual_hidden=8, layers=2, filter_size=3, attention_heads=2, training=TRAINING
    ),
    shape=(4, 4),
    codebook_size=8,
    classes=2,
    above=(MapSpec(2, 2, 8),),
)
CLASSIFIER = ClassifierDescription(
    architecture=ClassifierConfig(hidden=4, stages=2, training=TRAINING),
    dropout=0.1,
    channels=1,
    class_names=("no", "yes"),
)
KINDS = {
    "tokenizer": (TOKENIZER, pack_tokenizer, load_tokenizer, describe_tokenizer),
    "prior": (PRIOR, pack_prior, load_prior, describe_prior),
    "classifier": (CLASSIFIER, pack_classifier, load_classifier, describe_classifier),
}
FORMAT_1 = Path(__file__).parent / "format_1"
"""A generator's parts as the code before format 2 stored them, and code maps that it drew from them."""
FORMAT_2 = Path(__file__).parent / "format_2"
"""A prior as the code before `attention_placement` stored it, and code maps that it drew."""


def store(folder, kind):
    description, pack, _, _ = KINDS[kind]
    torch.manual_seed(0)
    model = description.build()
    for name, data in pack(model, description).items():
        (folder / name).write_bytes(data)
    return model


def edit_config(folder, change):
    """Let `change` alter the JSON of config.json in place."""
    path = folder / weights.CONFIG_FILE
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_model_is_loaded_as_it_was(tmp_path, kind):
    description, _, load, describe = KINDS[kind]
    model = store(tmp_path, kind)
    loaded = load(tmp_path)
    assert describe(tmp_path) == description
    assert not loaded.training
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_classifier_keeps_the_dropout_of_its_make(tmp_path):
    store(tmp_path, "classifier")
    assert load_classifier(tmp_path).dropout.p == 0.1


def test_equal_models_give_equal_bytes():
    def packed():
        torch.manual_seed(0)
        return pack_classifier(CLASSIFIER.build(), CLASSIFIER)

    assert packed() == packed()


def test_another_kind_is_refused(tmp_path):
    store(tmp_path, "classifier")
    with pytest.raises(ValueError, match="must describe a prior, got a classifier"):
        load_prior(tmp_path)


def test_another_format_is_refused(tmp_path):
    store(tmp_path, "classifier")
    edit_config(tmp_path, lambda config: config.update(format=99))
    with pytest.raises(ValueError, match=r"must have format 2 .*, got 99"):
        load_classifier(tmp_path)


# --- fields that come and go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_training_setting_is_stored(tmp_path, kind):
    store(tmp_path, kind)
    text = (tmp_path / weights.CONFIG_FILE).read_text()
    schedule = {field.name for field in dataclasses.fields(TrainingConfig)}
    for name in {"training", "beta", "restart_below", "prefix_share", "recompute", "seed"} | schedule:
        assert f'"{name}"' not in text


def test_a_new_field_of_the_architecture_takes_its_default_in_models_stored_before(tmp_path):
    store(tmp_path, "classifier")

    @dataclass(frozen=True, kw_only=True)
    class Wider(ClassifierArchitecture):
        """The architecture of a later version."""

        skips: int = 3

    @dataclass(frozen=True, kw_only=True)
    class Description:
        """Its description."""

        architecture: Wider
        dropout: float
        channels: int
        class_names: tuple[str, ...]
        task: str
        note: str | None = None

    later = weights.read_description(tmp_path, "classifier", Description, lambda record: record)
    assert later.architecture == Wider(hidden=4, stages=2, skips=3) and later.note is None


@pytest.mark.parametrize(
    ("kind", "field"),
    [("tokenizer", "quantizer"), ("tokenizer", "decay"), ("prior", "label_dropout"), ("classifier", "stages")],
)
def test_a_missing_field_of_the_architecture_takes_its_default(tmp_path, kind, field):
    description, _, _, describe = KINDS[kind]
    store(tmp_path, kind)
    edit_config(tmp_path, lambda config: config["description"]["architecture"].pop(field))
    default = next(each.default for each in dataclasses.fields(description.architecture) if each.name == field)
    assert describe(tmp_path).architecture == dataclasses.replace(description.architecture, **{field: default})


def test_a_prior_stored_before_attention_had_a_placement_draws_what_it_drew():
    expected = json.loads((FORMAT_2 / "expected.json").read_text())
    prior = load_prior(FORMAT_2 / "prior_middle_attention")
    assert prior.architecture.attention_placement == "middle" and list(prior.attention) == ["1"]
    labels, seeds, above = (torch.tensor(expected[name]) for name in ("labels", "seeds", "above"))
    assert Sampler(prior, len(labels)).sample(labels, [above], seeds).tolist() == expected["maps"]


def test_a_prior_stored_now_keeps_the_placement_that_it_was_fitted_with(tmp_path):
    for placement, block in (("end", "2"), ("middle", "1")):
        sizes = {"layers": 3, "attention_layers": 1, "attention_placement": placement}
        changed = dataclasses.replace(PRIOR, architecture=dataclasses.replace(PRIOR.architecture, **sizes))
        for name, data in pack_prior(changed.build(), changed).items():
            (tmp_path / name).write_bytes(data)
        assert describe_prior(tmp_path) == changed and list(load_prior(tmp_path).attention) == [block]


def test_a_missing_field_without_a_default_is_named(tmp_path):
    store(tmp_path, "classifier")
    edit_config(tmp_path, lambda config: config["description"]["architecture"].pop("hidden"))
    with pytest.raises(ValueError, match=r"architecture must have the fields \['hidden'\], got \['stages'\]"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_of_the_architecture_is_named(tmp_path, kind):
    store(tmp_path, kind)
    edit_config(tmp_path, lambda config: config["description"]["architecture"].update(storeys=2))
    with pytest.raises(ValueError, match=r"architecture must have no fields but .*, got \['storeys'\] too"):
        KINDS[kind][2](tmp_path)


def test_an_unknown_quantizer_is_named(tmp_path):
    store(tmp_path, "tokenizer")
    edit_config(tmp_path, lambda config: config["description"]["architecture"].update(quantizer="lattice"))
    with pytest.raises(
        ValueError, match=rf"quantizer must be one of {re.escape(str(list(QUANTIZERS)))}, got 'lattice'"
    ):
        load_tokenizer(tmp_path)


# --- format 1 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def format_1(tmp_path):
    """The parts of format 1 in a folder of this test's."""
    return Path(shutil.copytree(FORMAT_1, tmp_path / "format_1"))


def test_a_generator_of_format_1_draws_what_it_drew():
    expected = json.loads((FORMAT_1 / "expected.json").read_text())
    parts = ("tokenizer", "prior_top", "prior_bottom", "classifier")
    generator = load_generator({part: FORMAT_1 / part for part in parts})
    samples = generator.sample(torch.tensor(expected["labels"]), torch.tensor(expected["seeds"]))
    assert [codes.tolist() for codes in samples.maps] == expected["maps"]
    assert generator.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_any_size_in_format_1_is_loaded_as_it_was(tmp_path, kind):
    dropped = {"tokenizer": {"beta": 0.25}, "prior": {"dropout": 0.1, "recompute": True}, "classifier": {"seed": 1}}

    def to_format_1(config):
        description = config["description"]
        settings = description.pop("architecture") | dropped[kind] | {"training": dataclasses.asdict(TRAINING)}
        settings.pop("quantizer", None), settings.pop("attention_placement", None), description.pop("dropout", None)
        config |= {"format": 1, "description": description | {"settings": settings}}

    model = store(tmp_path, kind)
    edit_config(tmp_path, to_format_1)
    torch.testing.assert_close(KINDS[kind][2](tmp_path).state_dict(), model.state_dict(), rtol=0, atol=0)


def test_descriptions_of_format_1_keep_their_architecture():
    tokenizer, prior = describe_tokenizer(FORMAT_1 / "tokenizer"), describe_prior(FORMAT_1 / "prior_bottom")
    assert (tokenizer.architecture.decay, tokenizer.architecture.quantizer, tokenizer.image_size) == (0.97, "ema", 16)
    assert [level.stride for level in tokenizer.architecture.levels] == [8, 4]
    assert (prior.architecture.label_dropout, prior.above) == (0.1, (MapSpec(2, 2, 8),))
    assert describe_classifier(FORMAT_1 / "classifier").architecture == ClassifierArchitecture(hidden=4, stages=3)


def test_a_classifier_of_format_1_keeps_its_dropout(format_1):
    edit_config(format_1 / "classifier", lambda config: config["description"]["settings"].update(dropout=0.3))
    assert load_classifier(format_1 / "classifier").dropout.p == 0.3


def test_a_program_of_format_1_is_an_adopted_program(format_1):
    edit_config(format_1 / "classifier", lambda config: config["description"]["settings"].update(program="own.pt2"))
    description = describe_classifier(format_1 / "classifier")
    assert description == ClassifierDescription(architecture=None, channels=1, class_names=("ant", "bee", "cat"))
    stored = json.loads(pack_program(b"", description)[weights.CONFIG_FILE])
    assert stored["format"] == 2 and stored["description"]["architecture"] is None


@pytest.mark.parametrize("part", ["tokenizer", "prior_top", "classifier"])
def test_a_setting_that_format_1_never_had_is_named(format_1, part):
    edit_config(format_1 / part, lambda config: config["description"]["settings"].update(storeys=2))
    with pytest.raises(ValueError, match=r"settings must be among those of format 1, got \['storeys'\] too"):
        KINDS[part.split("_")[0]][2](format_1 / part)


def test_format_1_without_settings_is_refused(format_1):
    edit_config(format_1 / "classifier", lambda config: config["description"].pop("settings"))
    with pytest.raises(ValueError, match="must have the field 'settings'"):
        load_classifier(format_1 / "classifier")


# --- damage -----------------------------------------------------------------------------------------------------------


def test_tensors_of_another_model_are_refused(tmp_path):
    store(tmp_path, "classifier")
    other = dataclasses.replace(CLASSIFIER, channels=3)
    (tmp_path / weights.WEIGHTS_FILE).write_bytes(pack_classifier(other.build(), other)[weights.WEIGHTS_FILE])
    with pytest.raises(ValueError, match=r"1 differ, first stem.weight \(4, 1, 4, 4\) \(got \(4, 3, 4, 4\)\)"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", [weights.CONFIG_FILE, weights.WEIGHTS_FILE])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_folder_is_named(tmp_path, name, damage):
    store(tmp_path, "classifier")
    path = tmp_path / name
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{name}.*(is missing|cannot be read)"):
        load_classifier(tmp_path)

"""Stored models: what is packed is what is loaded, and a broken folder says what is wrong with it."""

import json

import pytest
import torch

from components.classifier.config import ClassifierConfig
from components.config import TrainingConfig
from components.priors.conditioning import MapSpec
from components.priors.config import PriorConfig
from components.store import weights
from components.tokenizer.config import LevelConfig, VQVAEConfig

TRAINING = TrainingConfig(updates=1, batch_size=1)
LEVELS = tuple(LevelConfig(name=name, stride=stride, codebook_size=8) for name, stride in (("top", 8), ("bottom", 4)))
TOKENIZER = weights.TokenizerDescription(
    settings=VQVAEConfig(levels=LEVELS, hidden=8, residual_hidden=4, training=TRAINING), channels=1, image_size=16
)
PRIOR = weights.PriorDescription(
    level="bottom",
    settings=PriorConfig(hidden=8, residual_hidden=8, layers=2, filter_size=3, attention_heads=2, training=TRAINING),
    shape=(4, 4),
    codebook_size=8,
    classes=2,
    above=(MapSpec(2, 2, 8),),
)
CLASSIFIER = weights.ClassifierDescription(
    settings=ClassifierConfig(hidden=4, stages=2, training=TRAINING), channels=1, class_names=("no", "yes")
)
KINDS = {
    "tokenizer": (TOKENIZER, weights.load_tokenizer, weights.describe_tokenizer),
    "prior": (PRIOR, weights.load_prior, weights.describe_prior),
    "classifier": (CLASSIFIER, weights.load_classifier, weights.describe_classifier),
}


def stored(folder, description):
    torch.manual_seed(0)
    model = description.build()
    for name, data in weights.pack(model, description).items():
        (folder / name).write_bytes(data)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_model_is_loaded_as_it_was(tmp_path, kind):
    description, load, describe = KINDS[kind]
    model = stored(tmp_path, description)
    loaded = load(tmp_path)
    assert describe(tmp_path) == description
    assert not loaded.training
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_equal_models_give_equal_bytes():
    def packed():
        torch.manual_seed(0)
        return weights.pack(CLASSIFIER.build(), CLASSIFIER)

    assert packed() == packed()


def test_another_kind_is_refused(tmp_path):
    stored(tmp_path, CLASSIFIER)
    with pytest.raises(ValueError, match="must describe a prior, got a classifier"):
        weights.load_prior(tmp_path)


def test_another_format_is_refused(tmp_path):
    stored(tmp_path, CLASSIFIER)
    config = json.loads((tmp_path / weights.CONFIG_FILE).read_text())
    (tmp_path / weights.CONFIG_FILE).write_text(json.dumps(config | {"format": 99}))
    with pytest.raises(ValueError, match="must have format 1, got 99"):
        weights.load_classifier(tmp_path)


def test_a_setting_too_few_is_named(tmp_path):
    stored(tmp_path, CLASSIFIER)
    text = (tmp_path / weights.CONFIG_FILE).read_text()
    (tmp_path / weights.CONFIG_FILE).write_text(text.replace('"stages"', '"storeys"'))
    with pytest.raises(ValueError, match=r"settings must have the fields .*'stages'.*got .*'storeys'"):
        weights.load_classifier(tmp_path)


def test_tensors_of_another_model_are_refused(tmp_path):
    stored(tmp_path, CLASSIFIER)
    other = weights.ClassifierDescription(settings=CLASSIFIER.settings, channels=3, class_names=("no", "yes"))
    (tmp_path / weights.WEIGHTS_FILE).write_bytes(weights.pack(other.build(), other)[weights.WEIGHTS_FILE])
    with pytest.raises(ValueError, match=r"1 differ, first stem.weight \(4, 1, 4, 4\) \(got \(4, 3, 4, 4\)\)"):
        weights.load_classifier(tmp_path)


@pytest.mark.parametrize("name", [weights.CONFIG_FILE, weights.WEIGHTS_FILE])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_folder_is_named(tmp_path, name, damage):
    stored(tmp_path, CLASSIFIER)
    path = tmp_path / name
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"{name}.*(is missing|cannot be read)"):
        weights.load_classifier(tmp_path)

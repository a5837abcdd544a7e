"""Sizes of models, checkpoints and code maps, compared with those of the models themselves."""

import pytest
import torch

from components.classifier.model import Classifier
from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.tokenizer.model import Tokenizer
from components.training.state import FitState
from pipeline.config_files import load_config
from pipeline.sizes import level_sizes, model_sizes


def test_parameter_counts_equal_those_of_the_models(config_file):
    config = load_config(config_file)
    above = (MapSpec(2, 2, 8),)
    models = {
        "tokenizer": Tokenizer(config.vqvae, channels=1),
        "prior_top": Prior(config.priors["top"], shape=(2, 2), codebook_size=8, classes=3, above=()),
        "prior_bottom": Prior(config.priors["bottom"], shape=(4, 4), codebook_size=8, classes=3, above=above),
        "classifier": Classifier(config.classifier, channels=1, classes=3),
        "judge": Classifier(config.judge, channels=1, classes=3),
    }
    expected = {name: sum(value.numel() for value in model.parameters()) for name, model in models.items()}
    assert {size.name: size.parameters for size in model_sizes(config, 3)} == expected


@pytest.mark.parametrize("classes", [0, 1])
def test_without_two_classes_only_a_judge_of_four_rotations_is_fitted(config_file, classes):
    config = load_config(config_file)
    sizes = {size.name: size.parameters for size in model_sizes(config, classes)}
    judge = Classifier(config.judge, channels=1, classes=4)
    assert "classifier" not in sizes and sizes["judge"] == sum(value.numel() for value in judge.parameters())


def test_the_size_of_a_checkpoint_matches_its_file(config_file, tmp_path):
    config = load_config(config_file)
    model = Classifier(config.judge, channels=1, classes=3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(2, 1, 16, 16)).sum().backward()
    optimizer.step()
    state = FitState(model, optimizer, 0.0)
    state.keep_best()
    state.save(tmp_path)
    written = (tmp_path / "state.safetensors").stat().st_size
    predicted = {size.name: size.checkpoint_bytes for size in model_sizes(config, 3)}["judge"]
    assert 0.7 < predicted / written <= 1  # the file's header comes on top


def test_three_levels_have_sizes_too(tree, tmp_path):
    path = tmp_path / "three.yaml"
    path.write_text(
        "base: digits\n"
        "vqvae: {levels: [{name: top, stride: 16}, {name: middle, stride: 8}, {name: bottom, stride: 4}]}\n"
        "generator: {guidance: 1}\n"
        "priors: {middle: {hidden: 8, residual_hidden: 8, layers: 1, training: {updates: 1, batch_size: 1}}}\n"
    )
    config = load_config(str(path))
    assert [(level.height, level.codes) for level in level_sizes(config)] == [(2, 4), (4, 16), (8, 64)]
    assert [size.name for size in model_sizes(config, 0)][1:4] == ["prior_top", "prior_middle", "prior_bottom"]

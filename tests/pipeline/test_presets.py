"""Presets: the sizes of the paper's tables, and models with the parameter counts that follow from those sizes.

The counts below are sums over layers, independent of the model code. Letters: c channels,
r residual channels, d code width, k codebook size, m filter side.
"""

from itertools import pairwise
from typing import Any

import pytest
import torch

from components.classifier.model import Classifier
from components.errors import ExitCode
from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.tokenizer.model import Tokenizer
from pipeline.cli import main
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config, preset_names

URI = "images.uri=/data"
CLASSES = {"digits": 10, "folder": 3, "imagenet256": 1000, "ffhq1024": 0}
MAPS = {
    "digits": (4, 8),
    "folder": (8, 16),
    "imagenet256": (32, 64),
    "ffhq1024": (32, 64, 128),
}
# Razavi et al. 2019, appendix, hyper-parameters of the priors: hidden, residual, layers, attention layers, filter,
# dropout, output layers, conditioning blocks, batch.
PAPER = {
    ("imagenet256", "top"): (512, 2048, 20, 4, 5, 0.1, 20, 0, 1024),
    ("imagenet256", "bottom"): (512, 1024, 20, 0, 5, 0.1, 0, 20, 512),
    ("ffhq1024", "top"): (512, 2048, 20, 4, 5, 0.5, 0, 0, 1024),
    ("ffhq1024", "middle"): (512, 1024, 20, 1, 5, 0.3, 0, 8, 512),
    ("ffhq1024", "bottom"): (512, 1024, 10, 0, 5, 0.1, 0, 8, 256),
}
# The same tables, training steps. FFHQ's are this project's choice (docs/paper.md).
PAPER_UPDATES = {("imagenet256", "top"): 1_600_000, ("imagenet256", "bottom"): 754_000}
# Section 3.2: attention after every five layers.
PAPER_ATTENTION = {
    ("imagenet256", "top"): [5, 10, 15, 20],
    ("ffhq1024", "top"): [5, 10, 15, 20],
    ("ffhq1024", "middle"): [20],
}
# Parameter counts that follow from those sizes. Calculated by hand for ImageNet's top prior: 20 gated blocks of
# 44,044,288, 4 attention layers of 1,575,424, 20 output blocks of 2,099,200, embeddings of 807,424, logits of 262,656.
COUNTED = {
    ("imagenet256", "tokenizer"): 1_852_035,
    ("imagenet256", "top"): 930_241_536,
    ("imagenet256", "bottom"): 550_891_008,
    ("ffhq1024", "tokenizer"): 3_467_523,
    ("ffhq1024", "top"): 887_745_536,
    ("ffhq1024", "middle"): 489_021_440,
    ("ffhq1024", "bottom"): 267_552_256,
}


def config_of(name: str) -> PipelineConfig:
    """The preset, with a URI of images if it needs one."""
    return load_config(name, [] if name == "digits" else [URI])


def parameter_count(model: torch.nn.Module) -> int:
    """Number of parameters that are fitted by gradient; codebooks are moving averages and do not count."""
    return sum(value.numel() for value in model.parameters())


# --- sums -------------------------------------------------------------------------------------------------------------


def conv_parameters(a: int, b: int, side: int) -> int:
    """Convolution with a bias."""
    return a * b * side * side + b


def residual_parameters(c: int, r: int) -> int:
    """3x3 convolution to r and 1x1 back."""
    return conv_parameters(c, r, 3) + conv_parameters(r, c, 1)


def doublings(coarse: int, fine: int) -> int:
    """Number of factors of two between two strides."""
    return 0 if coarse == fine else 1 + doublings(coarse // 2, fine)


def tokenizer_parameters(v: Any, channels: int) -> int:
    """Encoders from the bottom up, a decoder of the level above in each lower head, one decoder of all levels."""
    c, half, stack = v.hidden, v.hidden // 2, v.residual_layers * residual_parameters(v.hidden, v.residual_hidden)

    def encoder_parameters(inputs: int, steps: int) -> int:
        widths = [inputs, half] + [c] * (steps - 1)
        return sum(conv_parameters(a, b, 4) for a, b in pairwise(widths)) + conv_parameters(widths[-1], c, 3) + stack

    def decoder_parameters(inputs: int, outputs: int, steps: int) -> int:
        widths = [c, outputs] if steps == 1 else [c] * (steps - 1) + [half, outputs]
        return conv_parameters(inputs, c, 3) + stack + sum(conv_parameters(a, b, 4) for a, b in pairwise(widths))

    strides, widths = [level.stride for level in v.levels], [level.code_width for level in v.levels]
    total = encoder_parameters(channels, doublings(strides[-1], 1)) + conv_parameters(c, widths[0], 1)
    for index, (above, below) in enumerate(pairwise(strides)):
        steps, d = doublings(above, below), widths[index]
        total += (
            encoder_parameters(c, steps)
            + decoder_parameters(d, c, steps)
            + conv_parameters(2 * c, widths[index + 1], 1)
        )
        total += doublings(above, strides[-1]) * conv_parameters(d, d, 4)
    return total + decoder_parameters(sum(widths), channels, doublings(strides[-1], 1))


def gated_block_parameters(c: int, r: int, m: int) -> int:
    """Kernels of the vertical and horizontal stacks, the link between them, the context, two output projections."""
    vertical, horizontal = (m // 2 + 1) * m * c * 2 * r, (m // 2 + 1) * c * 2 * r
    return vertical + horizontal + c * 2 * r + (c * 2 * r + 2 * r) + 2 * r * c


def prior_parameters(p: Any, side: int, k: int, classes: int, above: list[tuple[int, int]]) -> int:
    """`above`: (side, k) of the maps above, top first."""
    c, r = p.hidden, p.residual_hidden
    attention = (3 * c * c + 3 * c) + 2 * c * c + 2 * c + c * c
    tables = k * c + (classes + 1) * c + 2 * side * c
    layers = p.layers * gated_block_parameters(c, r, p.filter_size) + p.attention_layers * attention
    output = p.output_layers * (c * r + r + r * c) + c * k + k
    conditioning = 0
    if above:
        maps = sum(size * c for _, size in above)
        conditioning = (
            maps
            + p.conditioning_layers * residual_parameters(c, r)
            + doublings(side, above[-1][0]) * conv_parameters(c, c, 4)
        )
    return tables + layers + output + conditioning


def classifier_parameters(settings: Any, channels: int, classes: int) -> int:
    """Stem, blocks that double the channels with two norms each, norm, head."""
    c = settings.hidden
    total = conv_parameters(channels, c, 4)
    for _ in range(settings.stages):
        total += 9 * c * c + conv_parameters(c, 2 * c, 3) + 2 * c * c + 4 * c
        c *= 2
    return total + 2 * c + c * classes + classes


# --- the presets ------------------------------------------------------------------------------------------------------


def test_the_table_covers_every_preset():
    assert sorted(MAPS) == preset_names() == sorted(CLASSES)


@pytest.mark.parametrize("name", sorted(MAPS))
def test_tokenizers_have_the_maps_and_parameters_of_their_sizes(name):
    config = config_of(name)
    channels = config.images.channels
    with torch.device("meta"):
        model = Tokenizer(config.vqvae, channels=channels)
    assert model.map_shapes(config.images.image_size) == tuple((side, side) for side in MAPS[name])
    assert parameter_count(model) == tokenizer_parameters(config.vqvae, channels)
    assert parameter_count(model) == COUNTED.get((name, "tokenizer"), parameter_count(model))


@pytest.mark.parametrize(("size", "maps"), [(32, (4, 8)), (64, (8, 16)), (128, (16, 32)), (256, (16, 32))])
def test_the_preset_for_own_images_follows_their_size(size, maps):
    config = load_config("folder", [URI, f"images.image_size={size}"])
    with torch.device("meta"):
        model = Tokenizer(config.vqvae, channels=3)
        assert parameter_count(model) == tokenizer_parameters(config.vqvae, 3)
    assert model.map_shapes(size) == tuple((side, side) for side in maps)
    assert size >> config.classifier.stages == size >> config.judge.stages <= 4  # the classifiers' last maps


def test_settings_of_your_own_win_over_those_that_follow_the_size():
    overrides = [URI, "images.image_size=256", "vqvae.levels.0.stride=32", "vqvae.hidden=96"]
    config = load_config("folder", overrides)
    assert [level.stride for level in config.vqvae.levels] == [32, 8] and config.vqvae.hidden == 96


@pytest.mark.parametrize("name", sorted(MAPS))
def test_priors_have_the_parameters_of_their_sizes(name):
    config, classes = config_of(name), CLASSES[name]
    maps = [(side, level.codebook_size) for side, level in zip(MAPS[name], config.vqvae.levels, strict=True)]
    for index, (level, (side, k)) in enumerate(zip(config.level_names, maps, strict=True)):
        settings, above = config.priors[level], tuple(MapSpec(upper, upper, size) for upper, size in maps[:index])
        with torch.device("meta"):
            model = Prior(settings, shape=(side, side), codebook_size=k, classes=classes, above=above)
        assert parameter_count(model) == prior_parameters(settings, side, k, classes, maps[:index])
        assert parameter_count(model) == COUNTED.get((name, level), parameter_count(model))


@pytest.mark.parametrize("name", sorted(MAPS))
def test_classifiers_have_the_parameters_of_their_sizes(name):
    config, classes = config_of(name), CLASSES[name] or 4  # without classes, four rotations
    for settings in (config.classifier, config.judge):
        with torch.device("meta"):
            model = Classifier(settings, channels=config.images.channels, classes=classes)
        assert parameter_count(model) == classifier_parameters(settings, config.images.channels, classes)


@pytest.mark.parametrize(("name", "level"), sorted(PAPER))
def test_priors_have_the_sizes_of_the_paper(name, level):
    p = config_of(name).priors[level]
    sizes = (p.hidden, p.residual_hidden, p.layers, p.attention_layers, p.filter_size, p.dropout)
    assert (*sizes, p.output_layers, p.conditioning_layers, p.training.batch_size) == PAPER[name, level]
    assert p.training.learning_rate == 3e-4
    assert p.attention_heads == 8 or not p.attention_layers
    assert p.training.updates == PAPER_UPDATES.get((name, level), p.training.updates)
    assert [block + 1 for block in p.attended_blocks()] == PAPER_ATTENTION.get((name, level), [])


@pytest.mark.parametrize(("name", "strides"), [("imagenet256", (8, 4)), ("ffhq1024", (32, 16, 8))])
def test_tokenizers_have_the_sizes_of_the_paper(name, strides):
    v = config_of(name).vqvae
    levels = [(level.stride, level.codebook_size, level.code_width) for level in v.levels]
    assert levels == [(stride, 512, 64) for stride in strides]
    assert (v.hidden, v.residual_hidden, v.residual_layers, v.beta, v.decay) == (128, 64, 2, 0.25, 0.99)
    assert (v.training.batch_size, v.training.learning_rate) == (128, 3e-4)
    assert v.prefix_share == 0.05  # not in the paper: docs/paper.md says why
    with torch.device("meta"):
        model = Tokenizer(v, channels=3)
    filters = {type(part): set() for part in model.modules()}
    for part in model.modules():
        filters[type(part)].add(getattr(part, "kernel_size", None))
    # Table 3: encoder filters of 3 (strides are made by 4, the projections before and after by 1), upsampling by 4.
    assert filters[torch.nn.ConvTranspose2d] == {(4, 4)} and filters[torch.nn.Conv2d] == {(1, 1), (3, 3), (4, 4)}


@pytest.mark.parametrize("name", sorted(MAPS))
def test_every_batch_divides_evenly_among_the_workers(name):
    config = config_of(name)
    resources = config.resources
    fits = [
        (config.vqvae, resources.tokenizer),
        (config.classifier, resources.classifier),
        (config.judge, resources.classifier),
    ]
    fits += [(prior, resources.prior) for prior in config.priors.values()]
    assert all(fit.training.batch_size % step.workers == 0 for fit, step in fits)


@pytest.mark.parametrize("name", sorted(set(MAPS) - {"digits"}))
def test_a_preset_without_images_asks_for_their_uri(name, capsys):
    assert main(["validate", name]) == ExitCode.USAGE
    message = capsys.readouterr().err
    assert f"{name} has 1 fault" in message and "images.uri must name the folder when source is" in message
    assert main(["validate", name, "--offline", "--set", URI]) == ExitCode.DONE

"""Sizes of the models and the code dataset of a config before anything is fitted; models get no memory."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from components.classifier.model import Classifier
from components.classifier.objective import ROTATIONS
from components.config import TrainingConfig
from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.tokenizer.model import Tokenizer
from pipeline.config import PipelineConfig


@dataclass(frozen=True)
class LevelSize:
    """One level's code map."""

    name: str
    height: int
    width: int
    codebook_size: int

    @property
    def codes(self) -> int:
        """Codes per image."""
        return self.height * self.width

    @property
    def bits(self) -> float:
        """Bits per image, log2(K) per code."""
        return self.codes * math.log2(self.codebook_size)


@dataclass(frozen=True)
class ModelSize:
    """One model."""

    name: str
    parameters: int
    bytes: int
    """Size of the committed weights."""
    checkpoint_bytes: int
    """Size of a checkpoint: weights, best weights, Adam's two moments, and averaged weights if there are any."""


def level_sizes(config: PipelineConfig) -> list[LevelSize]:
    """Size of each level's code map, top first."""
    sides = {level: config.map_side(level) for level in config.level_names}
    return [
        LevelSize(level.name, sides[level.name], sides[level.name], level.codebook_size)
        for level in config.vqvae.levels
    ]


def model_sizes(config: PipelineConfig, classes: int | None) -> list[ModelSize]:
    """The models that are fitted for `classes` classes: tokenizer, priors, classifier and judge; None: not known yet.

    With fewer than two classes there is no classifier, and the judge tells rotations apart.
    """
    channels = config.images.channels
    specs = [MapSpec(level.height, level.width, level.codebook_size) for level in level_sizes(config)]
    with torch.device("meta"):  # shapes without storage
        sizes = [_size("tokenizer", Tokenizer(config.vqvae, channels=channels), config.vqvae.training)]
        for index, (level, spec) in enumerate(zip(config.level_names, specs, strict=True)):
            settings = config.priors[level]
            prior = Prior(
                settings,
                shape=(spec.height, spec.width),
                codebook_size=spec.codebook_size,
                classes=classes or 0,
                above=tuple(specs[:index]),
            )
            sizes.append(_size(f"prior_{level}", prior, settings.training))
        fitted = {"judge": config.judge}
        if config.classifier.program is None and (classes is None or classes >= 2):
            fitted = {"classifier": config.classifier} | fitted
        outputs = 1 if classes is None else classes if classes >= 2 else len(ROTATIONS)
        for name, classifier in fitted.items():
            model = Classifier(classifier, channels=channels, classes=outputs)
            sizes.append(_size(name, model, classifier.training))
    return sizes


def _size(name: str, model: nn.Module, training: TrainingConfig) -> ModelSize:
    state = sum(value.numel() * value.element_size() for value in model.state_dict().values())  # with buffers
    weights = sum(value.numel() * value.element_size() for value in model.parameters())
    moments = 2 * weights + (weights if training.weight_ema else 0)
    return ModelSize(name, sum(value.numel() for value in model.parameters()), state, 2 * state + moments)

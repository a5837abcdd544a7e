"""Settings and real images of a tiny evaluation."""

import torch

from components.evaluation.config import EvaluationConfig
from components.evaluation.protocol import evaluate_samples
from components.training.batches import ImageBatch
from tests.evaluation.random_data import random_pixels

CONFIG = EvaluationConfig(samples_per_class=6, keep=0.5, shares=(0.25, 1.0), neighbours=2, pictures=4)


def real_images(count, seed):
    """16x16 images, with labels 0, 1, 2 in turn."""
    return ImageBatch(random_pixels(count, 16, 16, 1, seed=seed), torch.arange(count) % 3)


def measure_generator(generator, judge, drawn, train, **changes):
    settings = {"held_out": real_images(12, 2), "nats_per_code": [2.0, 1.0], "config": CONFIG, "seed": 4, **changes}
    return evaluate_samples(generator, judge, drawn, train=train, **settings)

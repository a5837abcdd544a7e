"""The classification accuracy score (Ravuri and Vinyals 2019): how well a classifier learns from samples alone."""

from collections.abc import Iterator

import torch

from components.classifier.model import Classifier
from components.classifier.objective import ClassifierObjective
from components.config import TrainingConfig
from components.evaluation.judge import IMAGES_PER_CHUNK
from components.training.batches import ImageBatch
from components.training.loop import FitData, SilentObserver, evaluate_objective, fit_objective

SAMPLES_PER_UPDATE = 64
"""Batch size of the score's fit."""
PEAK_LEARNING_RATE = 2e-3
"""Learning rate of the score's fit, which is short: it starts here and falls to 0."""


def classification_accuracy_score(
    judge: Classifier, samples: ImageBatch, real: ImageBatch, updates: int, seed: int
) -> float:
    """Accuracy on `real` of a classifier of the judge's architecture that was fitted to `samples` alone."""
    config = TrainingConfig(
        updates=updates,
        batch_size=SAMPLES_PER_UPDATE,
        learning_rate=PEAK_LEARNING_RATE,
        final_rate=0.0,
        evaluate_every=updates,
        checkpoint_every=updates,
    )

    def batches(first: int) -> Iterator[ImageBatch]:
        for update in range(first, updates):
            order = torch.Generator().manual_seed(seed * updates + update)  # differs for every (seed, update)
            chosen = torch.randint(len(samples.labels), (config.batch_size,), generator=order)
            yield ImageBatch(samples.pixels[chosen], samples.labels[chosen])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = ClassifierObjective(_untrained_copy(judge))
        # The loop needs some held-out samples to evaluate; the score itself is measured below, on `real`.
        last = next(batches(updates - 1))
        data = FitData(batches=batches, held_out=lambda: [last])
        fit_objective(objective, config=config, seed=seed, data=data, observer=SilentObserver())
    parts = zip(real.pixels.split(IMAGES_PER_CHUNK), real.labels.split(IMAGES_PER_CHUNK), strict=True)
    return evaluate_objective(objective, (ImageBatch(pixels, labels) for pixels, labels in parts))["accuracy"]


def _untrained_copy(judge: Classifier) -> Classifier:
    return Classifier(judge.architecture, channels=judge.channels, classes=judge.classes, dropout=judge.dropout.p)

"""The classification accuracy score of samples that tell the classes apart, and of samples with wrong labels."""

import torch

from components.classifier.config import ClassifierArchitecture
from components.classifier.model import Classifier
from components.evaluation.measures.classification_score import classification_accuracy_score
from components.training.batches import ImageBatch
from tests.evaluation.random_data import random_pixels


def test_the_score_of_samples_that_tell_the_classes_apart_is_one():
    torch.manual_seed(0)
    judge = Classifier(ClassifierArchitecture(hidden=4, stages=2), channels=1, classes=2)
    labels = torch.arange(40) % 2
    pixels = (random_pixels(40, 8, 8, 1) // 4) + (labels * 150).to(torch.uint8)[:, None, None, None]
    good, bad = ImageBatch(pixels, labels), ImageBatch(pixels, 1 - labels)
    state = torch.get_rng_state()
    assert classification_accuracy_score(judge, good, good, updates=30, seed=1) == 1
    assert classification_accuracy_score(judge, bad, good, updates=30, seed=1) == 0
    assert torch.equal(torch.get_rng_state(), state)

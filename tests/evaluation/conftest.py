"""One evaluation of the tiny generator."""

import pytest
import torch


@pytest.fixture(scope="package")
def judge():
    from components.classifier.config import ClassifierArchitecture
    from components.classifier.model import Classifier

    torch.manual_seed(9)
    return Classifier(ClassifierArchitecture(hidden=4, stages=2), channels=1, classes=3).eval()


@pytest.fixture(scope="package")
def drawn(generator):
    from tests.evaluation.tiny import CONFIG

    from components.evaluation.protocol import draws_per_class
    from components.generator.rejection import draw_samples

    return draw_samples(generator, classes=range(3), count=draws_per_class(CONFIG), seed=4)


@pytest.fixture(scope="package")
def evaluation(generator, judge, drawn):
    from tests.evaluation.tiny import measure_generator, real_images

    return measure_generator(generator, judge, drawn, real_images(48, 1))

"""The loss and the accuracy of the classifier's fit, and refused labels."""

import pytest
import torch

from components.classifier.config import ClassifierArchitecture
from components.classifier.model import Classifier
from components.classifier.objective import ClassifierObjective
from components.training.batches import ImageBatch


def make_classifier(hidden=4, channels=1, classes=3):
    torch.manual_seed(0)
    return Classifier(ClassifierArchitecture(hidden=hidden), channels=channels, classes=classes).eval()


def test_the_objective_is_the_mean_negative_log_probability():
    objective = ClassifierObjective(make_classifier())
    batch = ImageBatch(torch.randint(0, 256, (4, 16, 16, 1), dtype=torch.uint8), torch.tensor([0, 2, 1, 0]))
    loss, metrics = objective(batch)
    logits = objective.model(batch.pixels.permute(0, 3, 1, 2) / 127.5 - 1)
    expected = -logits.softmax(1)[torch.arange(4), batch.labels].log().mean()
    torch.testing.assert_close(loss, expected)
    assert metrics["accuracy"] == (logits.argmax(1) == batch.labels).sum() / 4


@pytest.mark.parametrize(
    ("labels", "message"), [([0, -1], r"1 of 2 have none.*one folder per class"), ([0, 3], r"0 \.\. 2, got 0 \.\. 3")]
)
def test_images_without_a_usable_label_are_refused(labels, message):
    batch = ImageBatch(torch.zeros(2, 16, 16, 1, dtype=torch.uint8), torch.tensor(labels))
    with pytest.raises(ValueError, match=message):
        ClassifierObjective(make_classifier())(batch)

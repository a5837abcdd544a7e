"""The loss and the accuracy of the classifier's fit, and refused labels."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from components.classifier.config import ClassifierArchitecture
from components.classifier.model import Classifier
from components.classifier.objective import ROTATIONS, ClassifierObjective, RotationObjective
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


def test_the_loss_of_rotations_is_that_of_images_turned_one_by_one():
    objective = RotationObjective(make_classifier(classes=len(ROTATIONS)))
    pixels = torch.randint(0, 256, (3, 16, 16, 1), dtype=torch.uint8)
    loss, metrics = objective(ImageBatch(pixels, torch.full((3,), -1)))  # labels are not looked at
    nats, correct = [], []
    for image in pixels.numpy():
        for turn in range(4):
            turned = torch.from_numpy(np.rot90(image, turn).copy())[None]  # (1, h, w, c)
            logits = objective.model(turned.permute(0, 3, 1, 2) / 127.5 - 1)[0]
            nats.append(-logits.softmax(0)[turn].log())
            correct.append(float(logits.argmax() == turn))
    torch.testing.assert_close(loss, torch.stack(nats).mean())
    assert metrics["accuracy"] == pytest.approx(np.mean(correct))


def test_rotations_of_real_digits_are_learnt():
    torch.manual_seed(0)
    pixels = torch.from_numpy(load_digits().images * (255 / 16)).to(torch.uint8)[..., None]  # (1797, 8, 8, 1)
    train, held_out = pixels[:1500], pixels[1500:]
    model = Classifier(ClassifierArchitecture(hidden=8, stages=2), channels=1, classes=4, task="rotation")
    objective, optimizer = RotationObjective(model), torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        batch = train[torch.randint(0, len(train), (32,))]
        optimizer.zero_grad()
        objective(ImageBatch(batch, torch.zeros(32, dtype=torch.int64)))[0].backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = objective.eval()(ImageBatch(held_out, torch.zeros(len(held_out))))[1]["accuracy"]
    assert accuracy > 0.7  # 0.25 by chance; 0, 1 and 8 look alike upside down

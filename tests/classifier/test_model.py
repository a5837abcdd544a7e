"""The classifier: accepted inputs, independence from the batch, and learning real digits."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from components.classifier.config import ClassifierArchitecture
from components.classifier.model import Classifier
from components.config import TrainingConfig

TRAINING = TrainingConfig(updates=200, batch_size=64, learning_rate=2e-3)


def make_classifier(hidden=4, channels=1, classes=3):
    torch.manual_seed(0)
    return Classifier(ClassifierArchitecture(hidden=hidden), channels=channels, classes=classes).eval()


@pytest.mark.parametrize("size", [(8, 8), (33, 47), (64, 32)])
def test_a_score_does_not_depend_on_the_rest_of_the_batch(size):
    model, images = make_classifier(channels=3).double(), torch.rand(5, 3, *size, dtype=torch.float64) * 2 - 1
    whole = model(images)
    assert whole.shape == (5, 3)
    torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), whole)


def test_logits_are_the_last_layer_of_the_features():
    model, images = make_classifier(), torch.rand(2, 1, 16, 16)
    features = model.features(images)
    assert features.shape == (2, model.width)
    torch.testing.assert_close(features @ model.head.weight.T + model.head.bias, model(images))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 16, 16), r"\(n, 1, height, width\), got \(2, 3, 16, 16\)"),
        (torch.zeros(0, 1, 16, 16), "at least one image"),
        (torch.full((1, 1, 4, 4), torch.nan), "finite, got 16 NaN or infinite values of 16"),
    ],
)
def test_images_with_wrong_shapes_or_values_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        make_classifier()(images)


def test_dropout_zeroes_its_fraction_of_the_features_only_in_training():
    model = Classifier(ClassifierArchitecture(hidden=4), channels=1, classes=3, dropout=0.25)
    features = torch.ones(400, model.width)
    dropped = (model.train().dropout(features) == 0).float().mean()
    assert 0.2 < dropped < 0.3 and torch.equal(model.eval().dropout(features), features)


@pytest.mark.slow
def test_the_classifier_learns_real_digits():
    pixels, labels = load_digits(return_X_y=True)
    images = F.interpolate(torch.tensor(pixels).float().view(-1, 1, 8, 8) / 8 - 1, size=16, mode="bilinear")
    labels, order = torch.tensor(labels), torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out, train = order[:360], order[360:]
    model = make_classifier(hidden=12, classes=10).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=TRAINING.learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, TRAINING.updates)
    for _ in range(TRAINING.updates):
        chosen = train[torch.randint(len(train), (TRAINING.batch_size,))]
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        assert (model.eval()(images[held_out]).argmax(1) == labels[held_out]).float().mean() > 0.96

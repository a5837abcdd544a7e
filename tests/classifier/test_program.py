"""An exported classifier: checked, stored, and with the scores of the network it was exported from."""

import io

import pytest
import torch
from torch import nn

from components.classifier.program import ProgramClassifier
from components.classifier.stored import ClassifierDescription, load_classifier, load_rejector, pack_program
from components.generator.ancestral import Generator
from components.generator.stored import load_generator
from components.images.tensors import to_images
from components.store.weights import CONFIG_FILE


class Network(nn.Module):
    """A user's network with layers that differ between training and evaluation."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean(dim=(2, 3)))


def export_program(network: nn.Module, dynamic: bool = True) -> bytes:
    """The bytes of a .pt2 file; its batch size is fixed to 2 unless `dynamic`."""
    shapes = ({0: torch.export.Dim.AUTO},) if dynamic else None
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (torch.zeros(2, 1, 16, 16),), dynamic_shapes=shapes), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def data(network):
    return export_program(network)


def test_a_program_gives_the_scores_of_its_network_in_both_modes(network, data):
    program, images = ProgramClassifier(data, channels=1, classes=3), torch.rand(7, 1, 16, 16)
    program.check(16)
    for mode in (program.train(), program.eval()):
        torch.testing.assert_close(mode(images), network(images))


def test_a_generator_loads_and_uses_a_stored_program(network, data, generator_folders, tmp_path):
    description = ClassifierDescription(architecture=None, channels=1, class_names=("ant", "bee", "cat"))
    for name, content in pack_program(data, description).items():
        (tmp_path / name).write_bytes(content)
    generator = load_generator(generator_folders | {"classifier": tmp_path})
    labels = torch.tensor([0, 1, 2])
    samples = generator.sample(labels, labels)
    scores = network(to_images(samples.pixels)).softmax(1)
    torch.testing.assert_close(samples.probability, scores[labels, labels])


def test_a_program_with_other_classes_is_refused(generator, data):
    parts = (generator.tokenizer, list(generator.priors))
    with pytest.raises(ValueError, match="the classifier must have 2 classes as the generator has, got 3"):
        Generator(*parts, ProgramClassifier(data, channels=1, classes=3), ["one", "two"])


class Broken(Network):
    """Gives NaN for images of zeros."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) / images.abs().sum()


@pytest.mark.parametrize(
    "network, dynamic, message",
    [
        (Network(classes=4), True, r"must give logits \(1, 3\) .*, got \(1, 4\): was it made for other classes"),
        (Network(), False, "but failed: .*export it with a dynamic first dimension"),
        (Broken(), True, "must give finite logits"),
    ],
)
def test_a_program_without_valid_logits_is_refused(network, dynamic, message):
    program = ProgramClassifier(export_program(network.eval(), dynamic), channels=1, classes=3)
    with pytest.raises(ValueError, match=message):
        program.check(16)


def test_bytes_that_are_not_a_program_are_refused():
    with pytest.raises(ValueError, match=r"what torch\.export\.save wrote, but 4 bytes cannot be read"):
        ProgramClassifier(b"nope", channels=1, classes=3)


def test_a_missing_stored_program_is_reported(tmp_path):
    description = ClassifierDescription(architecture=None, channels=1, class_names=("no", "yes"))
    (tmp_path / CONFIG_FILE).write_bytes(pack_program(b"", description)[CONFIG_FILE])
    with pytest.raises(ValueError, match=r"must have program\.pt2, but"):
        load_rejector(tmp_path)
    with pytest.raises(ValueError, match="adopted program or an empty classifier, which have no features"):
        load_classifier(tmp_path)

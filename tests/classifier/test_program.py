"""An exported classifier: checked, stored, and scoring samples as the network it came from."""

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
    """A user's network, with what differs between training and use."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean(dim=(2, 3)))


def exported(network: nn.Module, dynamic: bool = True) -> bytes:
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
    return exported(network)


def test_it_scores_as_the_network_does_in_either_mode(network, data):
    program, images = ProgramClassifier(data, channels=1, classes=3), torch.rand(7, 1, 16, 16)
    program.check(16)
    for mode in (program.train(), program.eval()):
        torch.testing.assert_close(mode(images), network(images))


def test_a_generator_stores_loads_and_uses_it(network, data, generator_folders, tmp_path):
    description = ClassifierDescription(architecture=None, channels=1, class_names=("ant", "bee", "cat"))
    for name, content in pack_program(data, description).items():
        (tmp_path / name).write_bytes(content)
    generator = load_generator(generator_folders | {"classifier": tmp_path})
    labels = torch.tensor([0, 1, 2])
    samples = generator.sample(labels, labels)
    scores = network(to_images(samples.pixels)).softmax(1)
    torch.testing.assert_close(samples.probability, scores[labels, labels])


def test_a_program_of_other_classes_is_refused(generator, data):
    parts = (generator.tokenizer, list(generator.priors))
    with pytest.raises(ValueError, match="the classifier must know 2 classes as the generator does, got 3"):
        Generator(*parts, ProgramClassifier(data, channels=1, classes=3), ["one", "two"])


class Broken(Network):
    """Gives NaN for black images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) / images.abs().sum()


@pytest.mark.parametrize(
    "network, dynamic, message",
    [
        (Network(classes=4), True, r"must give logits \(1, 3\) .*, got \(1, 4\): does it know other classes"),
        (Network(), False, "but failed: .*export it with a dynamic first dimension"),
        (Broken(), True, "must give finite logits"),
    ],
)
def test_what_does_not_classify_is_refused(network, dynamic, message):
    program = ProgramClassifier(exported(network.eval(), dynamic), channels=1, classes=3)
    with pytest.raises(ValueError, match=message):
        program.check(16)


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match=r"what torch\.export\.save wrote, but 4 bytes cannot be read"):
        ProgramClassifier(b"nope", channels=1, classes=3)


def test_a_stored_program_that_is_gone_is_named(tmp_path):
    description = ClassifierDescription(architecture=None, channels=1, class_names=("no", "yes"))
    (tmp_path / CONFIG_FILE).write_bytes(pack_program(b"", description)[CONFIG_FILE])
    with pytest.raises(ValueError, match=r"must have program\.pt2, but"):
        load_rejector(tmp_path)
    with pytest.raises(ValueError, match="adopted program, which has no features"):
        load_classifier(tmp_path)

"""The losses that fit a classifier: cross entropy on labelled images, or on rotated images without labels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.classifier.model import Classifier
from components.classifier.program import ProgramClassifier
from components.config import require
from components.images.tensors import to_images
from components.training.batches import ImageBatch

ROTATIONS = ("0 degrees", "90 degrees", "180 degrees", "270 degrees")
"""Names of the classes that a classifier of rotations tells apart: class k is k quarter turns, counterclockwise."""


class ClassifierObjective(nn.Module):
    """Cross entropy in nats, and the fraction of images that are classified correctly."""

    def __init__(self, model: Classifier | ProgramClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics `loss`, `accuracy`; raises ValueError for images without a label of 0 .. classes - 1."""
        check_labels(batch.labels, self.model.classes)
        logits = self.model(to_images(batch.pixels)).float()  # (n, classes)
        loss = F.cross_entropy(logits, batch.labels)
        accuracy = (logits.argmax(1) == batch.labels).float().mean()
        return loss, {"loss": loss.detach(), "accuracy": accuracy}

    def parts(self) -> list[nn.Module]:
        """Modules that torch.compile can compile without graph breaks: the check of labels is outside them."""
        return [self.model]


class RotationObjective(nn.Module):
    """Cross entropy in nats of telling by how many quarter turns an image is rotated (Gidaris et al. 2018).

    The task needs no labels, and its features mean something: a network that tells up from down must recognise what an
    image shows. Features of a network that was not fitted rank sets of images by noise.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics `loss`, `accuracy` over each image in all four rotations (section 2.2 of the paper)."""
        images = to_images(batch.pixels)  # (n, c, h, w)
        require(len(images) > 0, "a classifier needs at least one image per batch, got none")
        turns = range(len(ROTATIONS))
        rotated = torch.cat([torch.rot90(images, turn, dims=(2, 3)) for turn in turns])  # (4n, c, h, w)
        labels = torch.arange(len(ROTATIONS), device=images.device).repeat_interleave(len(images))  # (4n,)
        logits = self.model(rotated).float()  # (4n, 4)
        loss = F.cross_entropy(logits, labels)
        return loss, {"loss": loss.detach(), "accuracy": (logits.argmax(1) == labels).float().mean()}

    def parts(self) -> list[nn.Module]:
        """Modules that torch.compile can compile without graph breaks."""
        return [self.model]


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError unless every label lies in 0 .. classes - 1."""
    require(labels.numel() > 0, "a classifier needs at least one image per batch, got none")
    low, high = int(labels.min()), int(labels.max())
    missing = int((labels == -1).sum())
    require(
        missing == 0,
        f"a classifier needs a label for every image, {missing} of {labels.numel()} have none (-1): "
        "sort the images into one folder per class, or leave those without a class out",
    )
    require(
        low >= 0 and high < classes,
        f"labels must lie in 0 .. {classes - 1}, got {low} .. {high}: was the classifier built for another dataset?",
    )

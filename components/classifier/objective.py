"""The loss that fits a classifier: cross entropy on labelled images."""

from torch import Tensor, nn
from torch.nn import functional as F

from components.classifier.model import Classifier
from components.classifier.program import ProgramClassifier
from components.config import require
from components.images.tensors import to_images
from components.training.batches import ImageBatch


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

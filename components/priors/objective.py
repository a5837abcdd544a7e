"""The loss of a prior.

Shapes: n images, h w sides of this level's map, k codebook size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.config import require
from components.priors.model import Prior
from components.training.batches import CodeBatch


class PriorObjective(nn.Module):
    """Negative log-likelihood of one level's codes given the class and all maps above (Algorithm 2, lines 8 and 9).

    `level` is the index of the prior's own map in a batch: the number of levels above it. `dimensions` is how many
    numbers an image has: height x width x channels.
    """

    def __init__(self, model: Prior, *, dimensions: int) -> None:
        super().__init__()
        self.model, self.dimensions = model, dimensions
        self.level = len(model.above)

    def forward(self, batch: CodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy in nats per code, and the metrics.

        A label of -1 means 'no class'. Raises ValueError for codes or labels that the prior does not know.
        """
        codes, above = batch.maps[self.level], batch.maps[: self.level]
        labels = torch.where(batch.labels == -1, self.model.classes, batch.labels)  # n
        if not torch.compiler.is_compiling():
            labels_valid = bool((batch.labels < self.model.classes).all())
            require(
                labels_valid,
                f"labels must be below classes={self.model.classes}, or -1 for 'no class'; got "
                f"{int(batch.labels.max())}: does the dataset hold more classes than this prior was made for?",
            )
            self.model.check(labels, above, codes)
        logits = self.model(codes, self._drop(labels), above).flatten(0, 2).float()  # n*h*w k
        loss = F.cross_entropy(logits, codes.flatten())
        nats = loss.detach()
        accuracy = (logits.detach().argmax(dim=-1) == codes.flatten()).float().mean()
        bits = nats / math.log(2)
        per_dimension = bits * (codes[0].numel() / self.dimensions)
        metrics = {
            "nats_per_code": nats,
            "bits_per_code": bits,
            "bits_per_dimension": per_dimension,
            "accuracy": accuracy,
        }
        return loss, {"loss": nats} | metrics

    def parts(self) -> list[nn.Module]:
        """Modules for torch.compile to fuse; the checks above stay outside."""
        return [self.model]

    def _drop(self, labels: Tensor) -> Tensor:
        """While training, each label becomes 'no class' with the configured probability."""
        if not self.training or self.model.architecture.label_dropout == 0:
            return labels
        dropped = torch.rand(labels.shape, device=labels.device) < self.model.architecture.label_dropout
        return torch.where(dropped, self.model.classes, labels)

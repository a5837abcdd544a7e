"""What fitting a prior minimises.

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
    """Negative log-likelihood of one level's codes given the class and all maps above (Algorithm 2, line 8).

    `level` is the index of the prior's own map in a batch: the number of levels above it. `dimensions` are the numbers
    of the image that a map stands for, height x width x channels.
    """

    def __init__(self, model: Prior, *, dimensions: int) -> None:
        super().__init__()
        self.model, self.dimensions = model, dimensions
        self.level = len(model.above)

    def forward(self, batch: CodeBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy in nats a code, and the metrics, with the level's bits an image dimension among them.

        A label of -1 means 'no class'.
        """
        codes, above = batch.maps[self.level], batch.maps[: self.level]
        labels = torch.where(batch.labels == -1, self.model.classes, batch.labels)
        if not torch.compiler.is_compiling():
            known = bool((batch.labels < self.model.classes).all())
            require(
                known,
                f"labels must be below classes={self.model.classes}, or -1 for 'no class'; got "
                f"{int(batch.labels.max())}: does the dataset hold more classes than this prior was made for?",
            )
            self.model.check(labels, above, codes)
        logits = self.model(codes, self._drop(labels), above).flatten(0, 2).float()  # (n h w) k
        loss = F.cross_entropy(logits, codes.flatten())
        nats = loss.detach()
        accuracy = (logits.detach().argmax(dim=-1) == codes.flatten()).float().mean()
        bits = nats / math.log(2)
        spread = bits * (codes[0].numel() / self.dimensions)
        metrics = {"nats_per_code": nats, "bits_per_code": bits, "bits_per_dimension": spread, "accuracy": accuracy}
        return loss, {"loss": nats} | metrics

    def parts(self) -> list[nn.Module]:
        """What torch.compile can take whole; the checks above stay outside."""
        return [self.model]

    def _drop(self, labels: Tensor) -> Tensor:
        """While training, each label becomes 'no class' with the configured probability."""
        if not self.training or self.model.config.label_dropout == 0:
            return labels
        dropped = torch.rand(labels.shape, device=labels.device) < self.model.config.label_dropout
        return torch.where(dropped, self.model.classes, labels)

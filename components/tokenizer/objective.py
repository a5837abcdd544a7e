"""What fitting the tokenizer minimises (equation 2 of Razavi et al. 2019; the codebooks follow by moving averages)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.tokenizer.model import Tokenizer, to_images
from components.training.batches import ImageBatch

MIN_SQUARED_ERROR = 1e-12
"""Squared error taken for a perfect reconstruction, so that its PSNR (120 dB) is a number."""


class TokenizerObjective(nn.Module):
    """Mean squared error of the reconstruction plus the commitment of all levels."""

    def __init__(self, model: Tokenizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics: `loss`, `reconstruction_error` (mean square, images in [-1, 1]), `psnr` (dB, images cut to
        [0, 1]), and for each level `perplexity_<level>` and `usage_<level>` (share of the codebook) in this batch.
        """
        images = to_images(batch.pixels)
        output = self.model(images)
        error = F.mse_loss(output.reconstruction.float(), images)
        loss = error + output.commitment
        metrics = {"loss": loss, "reconstruction_error": error, "psnr": _psnr(output.reconstruction.detach(), images)}
        for level, statistics in zip(self.model.config.levels, output.statistics, strict=True):
            metrics[f"perplexity_{level.name}"] = statistics.perplexity
            metrics[f"usage_{level.name}"] = statistics.usage
        return loss, {name: value.detach() for name, value in metrics.items()}

    def parts(self) -> list[nn.Module]:
        """What torch.compile can take whole: all but the codebooks, whose update talks to other workers."""
        model = self.model
        return [*model.encoders, model.top, *model.lower, model.decoder]


def _psnr(reconstruction: Tensor, images: Tensor) -> Tensor:
    # A range of 2 instead of 1 makes the squared error four times as large.
    error = F.mse_loss(reconstruction.float().clamp(-1, 1), images) / 4
    return -10 * torch.log10(error.clamp(min=MIN_SQUARED_ERROR))

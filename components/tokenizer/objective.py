"""The loss that fits the tokenizer (Razavi et al. 2019, equation 2); the codebooks follow by moving averages."""

import torch.nn.functional as F
from torch import Tensor, nn

from components.images.tensors import to_images
from components.tokenizer.model import Tokenizer
from components.tokenizer.psnr import psnr
from components.training.batches import ImageBatch


class TokenizerObjective(nn.Module):
    """Mean squared error of the reconstruction plus `beta` times the commitment of all levels."""

    def __init__(self, model: Tokenizer, *, beta: float) -> None:
        super().__init__()
        self.model, self.beta = model, beta

    def forward(self, batch: ImageBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of a batch: `loss`, `reconstruction_error` (mean square, images in [-1, 1]), `psnr` (dB,
        mean over images, of reconstructions clamped to [-1, 1]), and for each level `perplexity_<level>` and
        `usage_<level>` (fraction of the codebook).
        """
        images = to_images(batch.pixels)  # (n, c, height, width)
        output = self.model(images)
        reconstruction = output.reconstruction.float()  # (n, c, height, width)
        error = F.mse_loss(reconstruction, images)  # ()
        loss = error + self.beta * output.commitment
        ratio = psnr(reconstruction.detach().clamp(-1, 1), images, peak=2)  # () dB; values from -1 to 1
        metrics = {"loss": loss, "reconstruction_error": error, "psnr": ratio}
        for level, statistics in zip(self.model.architecture.levels, output.statistics, strict=True):
            metrics[f"perplexity_{level.name}"] = statistics.perplexity
            metrics[f"usage_{level.name}"] = statistics.usage
        return loss, {name: value.detach() for name, value in metrics.items()}

    def parts(self) -> list[nn.Module]:
        """Modules for torch.compile: all but the quantizers, whose update communicates with other workers."""
        model = self.model
        return [*model.encoders, model.top, *model.lower, model.decoder]

"""Many images through the judge or the tokenizer, in chunks. Shapes: n images, f features, h w sides, c channels."""

from typing import NamedTuple

import torch
from torch import Tensor

from components.classifier.model import Classifier
from components.images.tensors import to_images, to_pixels
from components.tokenizer.model import Tokenizer

IMAGES_PER_CHUNK = 256
"""Images per forward pass."""


class Classification(NamedTuple):
    """A judge's output for images."""

    classes: Tensor
    """int64 (n,): the most likely class."""
    features: Tensor
    """float (n, f)."""


@torch.no_grad()
def classify(judge: Classifier, pixels: Tensor) -> Classification:
    """Classes and features of pixels uint8 (n, h, w, c); the result is in main memory."""
    device = next(judge.parameters()).device
    parts = [judge.features(to_images(part.to(device))) for part in pixels.split(IMAGES_PER_CHUNK)]
    features = torch.cat(parts)  # (n, f)
    return Classification(judge.head(features).argmax(1).cpu(), features.cpu())  # (n,), (n, f)


@torch.no_grad()
def reconstruct_pixels(tokenizer: Tokenizer, pixels: Tensor) -> Tensor:
    """Pixels uint8 (n, h, w, c) -> encoded and decoded, same shape; the result is in main memory."""
    device = next(tokenizer.parameters()).device
    parts = [tokenizer.decode(tokenizer.encode(to_images(part.to(device)))) for part in pixels.split(IMAGES_PER_CHUNK)]
    return torch.cat([to_pixels(part).cpu() for part in parts])  # (n, h, w, c)

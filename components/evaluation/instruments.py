"""What describes one image in an evaluation: the judge, the user's feature extractors, and distances between an image
and its reconstruction.

Shapes: n images, h w sides, c channels, f features, y classes of an extractor.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from components.classifier.model import Classifier
from components.classifier.stored import describe_classifier, load_classifier
from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.stored import load_distance, load_features
from components.evaluation.measures.memorisation import thumbnails
from components.evaluation.measures.reconstruction import measure_reconstruction
from components.generator.ancestral import Generator
from components.generator.committed import load_committed_generator
from components.images.tensors import HALF_RANGE, to_images, to_pixels
from components.store import commits

JUDGE = "judge"
"""Name of the judge's features."""
IMAGES_PER_FORWARD = 50
"""Images per forward pass: bounds the memory of extractors that enlarge images to 299 pixels."""


class Described(NamedTuple):
    """One extractor's output for n images."""

    features: Tensor
    """float32 (n, f)."""
    probabilities: Tensor | None
    """float32 (n, y), in which the inception score is measured; None where the extractor gives none."""


@dataclass(frozen=True)
class InstrumentSettings:
    """Everything that `load_instruments` needs; small, so that it can be sent to a task."""

    generator: str
    """URI of the committed generator."""
    judge: str
    """URI of the committed judge."""
    features: tuple[FeaturesConfig, ...]
    lpips: str | None
    image_size: int
    gpu: bool
    """Whether models work on a GPU."""


class Instruments:
    """The generator and all models that describe images, on one device."""

    def __init__(self, settings: InstrumentSettings) -> None:
        self.device = torch.device("cuda" if settings.gpu else "cpu")
        self.generator: Generator = load_committed_generator(settings.generator).to(self.device)
        judge_folder = commits.local_copy(settings.judge)
        self.judge: Classifier = load_classifier(judge_folder).to(self.device)
        self.judges_classes = describe_classifier(judge_folder).task == "classes"
        channels, device = self.generator.tokenizer.channels, str(self.device)
        extractors = {
            each.name: load_features(each, channels, settings.image_size, device=device) for each in settings.features
        }
        self.lpips = (
            None
            if settings.lpips is None
            else load_distance(settings.lpips, channels, settings.image_size, device=device)
        )
        self.extractors: dict[str, Callable[[Tensor], Described]] = {JUDGE: self._judged}
        self.extractors |= {name: functools.partial(_extracted, program) for name, program in extractors.items()}

    @torch.no_grad()
    def describe(self, pixels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rows and tensors (parts.py) of pixels uint8 (n, h, w, c).

        The rows have `judged` int64 (n,), the judge's class, if it knows the classes. The tensors have
        `features/<extractor>`, `probabilities/<extractor>` and `thumbnails`.
        """
        parts: dict[str, list[Tensor]] = {}
        for part in pixels.split(IMAGES_PER_FORWARD):
            for name, extract in self.extractors.items():
                described = extract(part.to(self.device))
                parts.setdefault(f"features/{name}", []).append(described.features.cpu())
                if described.probabilities is not None:
                    parts.setdefault(f"probabilities/{name}", []).append(described.probabilities.cpu())
        tensors = {name: torch.cat(values) for name, values in parts.items()} | {"thumbnails": thumbnails(pixels)}
        rows = {"judged": tensors[f"probabilities/{JUDGE}"].argmax(dim=1)} if self.judges_classes else {}  # (n,)
        return rows, tensors

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Pixels uint8 (n, h, w, c) encoded and decoded, same shape, in main memory."""
        tokenizer, parts = self.generator.tokenizer, pixels.split(IMAGES_PER_FORWARD)
        decoded = (tokenizer.decode(tokenizer.encode(to_images(part.to(self.device)))) for part in parts)
        return torch.cat([to_pixels(part).cpu() for part in decoded])  # (n, h, w, c)

    @torch.no_grad()
    def distances(self, reconstructed: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        """`psnr` (dB), `squared_error` (images in [-1, 1]), `ssim` (of images that are large enough) and, with a
        program, `lpips`: float32 (n,) each.
        """
        errors = measure_reconstruction(reconstructed, pixels)
        found = {"psnr": errors.psnr, "squared_error": errors.mse / HALF_RANGE**2}
        if not bool(errors.ssim.isnan().any()):
            found["ssim"] = errors.ssim
        if self.lpips is not None:
            pairs = zip(reconstructed.split(IMAGES_PER_FORWARD), pixels.split(IMAGES_PER_FORWARD), strict=True)
            found["lpips"] = torch.cat([self.lpips(a.to(self.device), b.to(self.device)) for a, b in pairs])
        return {name: values.float().cpu() for name, values in found.items()}

    def _judged(self, pixels: Tensor) -> Described:
        features = self.judge.features(to_images(pixels))  # (n, f)
        probabilities = self.judge.head(features).softmax(dim=1) if self.judges_classes else None  # (n, y)
        return Described(features, probabilities)


def _extracted(program: Callable[[Tensor], tuple[Tensor, Tensor | None]], pixels: Tensor) -> Described:
    features, logits = program(pixels)  # (n, f), (n, y)
    return Described(features.float(), None if logits is None else logits.float().softmax(dim=1))


@functools.lru_cache(maxsize=1)
def load_instruments(settings: InstrumentSettings) -> Instruments:
    """The instruments, loaded once per process."""
    return Instruments(settings)

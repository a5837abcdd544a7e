"""Measures of sets of images. Shapes: n m images, f features, h w sides, c channels."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.classifier.model import Classifier
from components.classifier.objective import ClassifierObjective
from components.config import TrainingConfig, require
from components.evaluation.scores import Fidelity
from components.tokenizer.model import Tokenizer, to_images, to_pixels
from components.training.batches import ImageBatch
from components.training.loop import FitData, evaluate_objective, fit_objective
from components.training.state import FitState

IMAGES_PER_CHUNK = 256
"""Images a forward pass, and rows of a distance matrix held at once."""
SMALLEST_ERROR = 1e-12
"""Mean squared error at which a PSNR stops to rise: equal images have a finite one."""


class Classification(NamedTuple):
    """What a judge makes of images."""

    classes: Tensor
    """int64 (n,): the likeliest class."""
    features: Tensor
    """float (n, f)."""


@torch.no_grad()
def classify(judge: Classifier, pixels: Tensor) -> Classification:
    """Class and features that `judge` finds in pixels uint8 (n, h, w, c)."""
    device = next(judge.parameters()).device
    features = torch.cat([judge.features(to_images(part.to(device))) for part in pixels.split(IMAGES_PER_CHUNK)])
    return Classification(judge.head(features).argmax(1).cpu(), features.cpu())


@torch.no_grad()
def reconstruct_pixels(tokenizer: Tokenizer, pixels: Tensor) -> Tensor:
    """Pixels uint8 (n, h, w, c) -> encoded and decoded again, same shape."""
    device = next(tokenizer.parameters()).device
    parts = [tokenizer.decode(tokenizer.encode(to_images(part.to(device)))) for part in pixels.split(IMAGES_PER_CHUNK)]
    return torch.cat([to_pixels(part).cpu() for part in parts])


def psnr(pixels: Tensor, others: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images of one shape, from the mean squared error over all of them."""
    error = (pixels.float() - others.float()).square().mean().item()
    return 10 * math.log10(255**2 / max(error, SMALLEST_ERROR))


def fidelity(real: Tensor, others: Tensor, neighbours: int) -> Fidelity:
    """All three measures between features (n, f) and (m, f)."""
    return Fidelity(frechet_distance(real, others), *precision_recall(real, others, neighbours))


def frechet_distance(real: Tensor, others: Tensor) -> float:
    """Frechet distance of the Gaussians with mean and covariance of features (n, f) and (m, f) (Heusel et al. 2017).

    It is called FID only where the features are Inception's. It falls with n: compare at equal n only.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # seconds to import

    metric = FrechetInceptionDistance(feature=_Given(real.shape[1])).set_dtype(torch.float64)
    metric.update(real.double(), real=True)
    metric.update(others.double(), real=False)
    return max(0.0, metric.compute().item())


class _Given(nn.Module):
    """Features as they come, in the place of a network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def precision_recall(real: Tensor, others: Tensor, neighbours: int) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019, eqs. 1-2) of features (n, f) and (m, f).

    A point lies among a set when it is within some member's ball, whose radius reaches that member's k-th neighbour.
    """
    for features in (real, others):
        enough = len(features) > neighbours
        require(enough, f"each set must hold more than neighbours={neighbours} images, got {len(features)}")
    return _share_among(others, real, neighbours), _share_among(real, others, neighbours)


def _share_among(points: Tensor, members: Tensor, neighbours: int) -> float:
    # The nearest "neighbour" of a member is itself, hence k + 1.
    radii = torch.cat([rows.kthvalue(neighbours + 1, dim=1).values for rows in _distances(members, members)])
    within = torch.cat([(rows <= radii).any(dim=1) for rows in _distances(points, members)])
    return within.double().mean().item()


def nearest_distance(points: Tensor, members: Tensor) -> Tensor:
    """Distance float64 (n,) from each of (n, f) to the nearest of (m, f)."""
    return torch.cat([rows.min(dim=1).values for rows in _distances(points, members)])


def _distances(points: Tensor, members: Tensor) -> Iterator[Tensor]:
    members = members.double()
    for rows in points.double().split(IMAGES_PER_CHUNK):
        yield torch.cdist(rows, members, compute_mode="donot_use_mm_for_euclid_dist")


def thumbnails(pixels: Tensor, side: int = 16) -> Tensor:
    """Pixels uint8 (n, h, w, c) -> float (n, f), averaged to at most `side` a side: enough to see a copy by."""
    small = F.adaptive_avg_pool2d(to_images(pixels), (min(side, pixels.shape[1]), min(side, pixels.shape[2])))
    return small.flatten(1)


def memorisation(samples: Tensor, held_out: Tensor, train: Tensor) -> float:
    """Median distance from samples to the nearest training image over that of held-out images (pixels uint8 each).

    About 1: samples are as new as images never seen. Near 0: they are copies.
    """
    reference = thumbnails(train)
    usual = nearest_distance(thumbnails(held_out), reference).median()
    return (nearest_distance(thumbnails(samples), reference).median() / usual.clamp(min=1e-12)).item()


def bits_per_dimension(nats_per_code: Sequence[float], positions: Sequence[int], dimensions: int) -> float:
    """Prior code length in bits an image dimension: nats a code and codes an image, a level each; h * w * c dimensions.

    It is the cost of the codes under the priors, not a likelihood of pixels.
    """
    nats = sum(cost * count for cost, count in zip(nats_per_code, positions, strict=True))
    return nats / (math.log(2) * dimensions)


def classification_accuracy_score(
    judge: Classifier, samples: ImageBatch, real: ImageBatch, updates: int, seed: int
) -> float:
    """Accuracy on `real` of a classifier of the judge's make fitted to `samples` alone (Ravuri and Vinyals 2019)."""
    config = TrainingConfig(
        updates=updates,
        batch_size=64,
        learning_rate=2e-3,
        final_rate=0.0,
        evaluate_every=updates,
        checkpoint_every=updates,
    )

    def batches(first: int) -> Iterator[ImageBatch]:
        for update in range(first, updates):
            order = torch.Generator().manual_seed(seed * updates + update)
            chosen = torch.randint(len(samples.labels), (config.batch_size,), generator=order)
            yield ImageBatch(samples.pixels[chosen], samples.labels[chosen])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        objective = ClassifierObjective(Classifier(judge.config, channels=judge.channels, classes=judge.classes))
        last = next(batches(updates - 1))  # the loop must hold something out; the score is measured below, on `real`
        data = FitData(batches=batches, held_out=lambda: [last])
        fit_objective(objective, config=config, seed=seed, data=data, observer=_Silent())
    parts = zip(real.pixels.split(IMAGES_PER_CHUNK), real.labels.split(IMAGES_PER_CHUNK), strict=True)
    return evaluate_objective(objective, (ImageBatch(pixels, labels) for pixels, labels in parts))["accuracy"]


class _Silent:
    """An observer that keeps nothing: this fit is a measurement."""

    def progress(self, update: int, metrics: dict[str, float], images_per_second: float) -> None: ...

    def evaluated(self, update: int, metrics: dict[str, float], objective: nn.Module) -> None: ...

    def checkpoint(self, state: FitState) -> None: ...

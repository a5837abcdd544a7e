"""Whether samples are copies of training images. Shapes: n images, h w sides, c channels, f numbers per thumbnail."""

from torch import Tensor
from torch.nn import functional as F

from components.evaluation.measures.distances import nearest_distance
from components.evaluation.measures.kinds import GeneratorMeasure
from components.images.tensors import to_images

THUMBNAIL_SIDE = 16
"""Largest side in pixels of a thumbnail: large enough to recognise a copy, small enough to average noise away."""
SMALLEST_DISTANCE = 1e-12
"""Least distance of held-out images, to divide by: it is 0 where they are in the training set too."""


def thumbnails(pixels: Tensor, side: int = THUMBNAIL_SIDE) -> Tensor:
    """Pixels uint8 (n, h, w, c) -> float (n, f), averaged to at most `side` x `side` pixels."""
    sides = (min(side, pixels.shape[1]), min(side, pixels.shape[2]))
    small = F.adaptive_avg_pool2d(to_images(pixels), sides)  # (n, c, height, width)
    return small.flatten(1)  # (n, f), f = c * height * width of the thumbnail


def memorisation_ratio(samples: Tensor, held_out: Tensor, train: Tensor) -> float:
    """Median distance from samples to the nearest training image, divided by that of held-out images.

    All are pixels uint8 (n, h, w, c). About 1: samples are as new as held-out images. Near 0: they are copies.
    """
    training = thumbnails(train)  # (m, f)
    usual = nearest_distance(thumbnails(held_out), training).median()  # ()
    return (nearest_distance(thumbnails(samples), training).median() / usual.clamp(min=SMALLEST_DISTANCE)).item()


MEMORISATION_RATIO = GeneratorMeasure(
    name="memorisation_ratio",
    title="Novelty",
    meaning="Median distance from a sample to the nearest training image, divided by the same distance of held-out "
    "images.",
    value_format="{:.2f}",
    compute=lambda inputs: memorisation_ratio(inputs.samples.pixels, inputs.held_out.pixels, inputs.train.pixels),
    reference=lambda scores: "New images: 1; copies: 0",
)

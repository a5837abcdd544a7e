"""Conversion between stored pixels and the images that models take."""

import pytest
import torch

from components.images.tensors import to_images, to_pixels


def test_pixels_survive_the_round_trip_through_images():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(2, 1, 1, 3)
    images = to_images(pixels)
    assert images.shape == (2, 3, 16, 16) and images.min() == -1 and images.max() == 1
    assert torch.equal(to_pixels(images), pixels)
    with pytest.raises(ValueError, match="uint8"):
        to_images(images)
    with pytest.raises(ValueError, match="float"):
        to_pixels(pixels)

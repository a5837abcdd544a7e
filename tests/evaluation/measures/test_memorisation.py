"""The memorisation ratio of copies of training images and of new images."""

import pytest
import torch

from components.evaluation.measures.memorisation import memorisation_ratio, thumbnails
from components.images.tensors import to_images
from tests.evaluation.random_data import random_pixels


def test_copies_have_ratio_zero_and_new_images_ratio_one():
    train = random_pixels(40, 16, 16, 1)
    held_out, fresh = random_pixels(20, 16, 16, 1, seed=1), random_pixels(20, 16, 16, 1, seed=2)
    assert memorisation_ratio(train[:20], held_out, train) == pytest.approx(0, abs=1e-6)
    assert memorisation_ratio(fresh, held_out, train) == pytest.approx(1, abs=0.1)


def test_thumbnails_average_areas():
    pixels = random_pixels(2, 32, 48, 3)
    expected = to_images(pixels).reshape(2, 3, 16, 2, 16, 3).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(thumbnails(pixels), expected)

"""The PSNR of reconstructions, of 8-bit pixels."""

import math
from types import SimpleNamespace

import pytest
import torch

from components.evaluation.measures.reconstruction import RECONSTRUCTION_PSNR


def test_psnr_of_a_known_error():
    pixels = torch.full((2, 4, 4, 1), 100, dtype=torch.uint8)
    inputs = SimpleNamespace(held_out=SimpleNamespace(pixels=pixels), reconstructed=pixels + 5)
    assert RECONSTRUCTION_PSNR.compute(inputs) == pytest.approx(20 * math.log10(255 / 5))


def test_psnr_of_equal_images_is_finite():
    pixels = torch.full((2, 4, 4, 1), 100, dtype=torch.uint8)
    inputs = SimpleNamespace(held_out=SimpleNamespace(pixels=pixels), reconstructed=pixels)
    assert RECONSTRUCTION_PSNR.compute(inputs) == pytest.approx(120)

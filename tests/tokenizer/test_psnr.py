"""The PSNR of known errors, for several ranges of values."""

import math

import pytest
import torch

from components.tokenizer.psnr import psnr


def test_a_known_error_of_8_bit_pixels():
    black = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert float(psnr(black + 51, black, peak=255)) == pytest.approx(20 * math.log10(5))
    assert float(psnr(black + 255, black, peak=255)) == pytest.approx(0)


def test_images_in_minus_1_to_1_have_the_psnr_of_their_pixels():
    generator = torch.Generator().manual_seed(0)
    pixels, others = (torch.randint(256, (2, 8, 8, 3), generator=generator).float() for _ in range(2))
    scaled = psnr(pixels / 127.5 - 1, others / 127.5 - 1, peak=2)
    torch.testing.assert_close(scaled, psnr(pixels, others, peak=255), rtol=1e-5, atol=0)


@pytest.mark.parametrize("peak", [1, 2, 255])
def test_equal_images_have_120_db_for_every_peak(peak):
    images = torch.rand(1, 3, 8, 8)
    assert float(psnr(images, images, peak=peak)) == pytest.approx(120)

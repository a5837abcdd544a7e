"""The PSNR of known errors, for several ranges of values, and compared with torchmetrics."""

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from components.tokenizer.psnr import psnr, psnr_per_image


def random_pixels(seed):
    return torch.randint(256, (3, 8, 8, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_known_errors_of_8_bit_pixels_and_their_mean_over_images():
    black = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    errors = torch.tensor([51, 255], dtype=torch.uint8)[:, None, None, None]
    assert psnr_per_image(black + errors, black, peak=255).tolist() == pytest.approx([20 * math.log10(5), 0])
    assert float(psnr(black + errors, black, peak=255)) == pytest.approx(10 * math.log10(5))


def test_it_is_that_of_torchmetrics():
    pixels, others = random_pixels(0), random_pixels(1) // 2
    expected = peak_signal_noise_ratio(
        others.double(), pixels.double(), data_range=255.0, dim=(1, 2, 3), reduction="elementwise_mean"
    )
    assert float(psnr(others, pixels, peak=255)) == pytest.approx(float(expected), rel=1e-6)


def test_images_in_minus_1_to_1_have_the_psnr_of_their_pixels():
    pixels, others = random_pixels(0), random_pixels(1)
    scaled = psnr(pixels / 127.5 - 1, others / 127.5 - 1, peak=2)
    torch.testing.assert_close(scaled.double(), psnr(pixels, others, peak=255), rtol=1e-5, atol=0)


@pytest.mark.parametrize("peak", [1, 2, 255])
def test_equal_images_have_120_db_for_every_peak(peak):
    images = torch.rand(1, 3, 8, 8)
    assert float(psnr(images, images, peak=peak)) == pytest.approx(120)

"""Errors per image compared with torchmetrics, with scipy's filters, and with known errors."""

import math

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchmetrics.functional.image import structural_similarity_index_measure

from components.evaluation.measures.reconstruction import measure_reconstruction, ssim_per_image
from tests.evaluation.random_data import normal_features, random_pixels


def noisy(pixels, seed=1, scale=20):
    noise = scale * normal_features(*pixels.shape, seed=seed)
    return (pixels + noise).round().clamp(0, 255).to(torch.uint8)


def smooth_pixels(n, side, channels):
    """Images with structure: a few large patches."""
    coarse = random_pixels(n, 4, 4, channels)
    return coarse.repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2)


@pytest.mark.parametrize(("side", "channels"), [(32, 3), (48, 1)])
def test_ssim_is_that_of_torchmetrics_inside_the_image(side, channels):
    pixels = smooth_pixels(5, side, channels)
    other = noisy(pixels)
    x, y = (each.permute(0, 3, 1, 2).double() for each in (other, pixels))
    _, positions = structural_similarity_index_measure(x, y, data_range=255.0, reduction="none", return_full_image=True)
    # torchmetrics also counts windows that reach over the border, into reflected pixels; Wang et al. do not.
    expected = positions[:, :, 5:-5, 5:-5].mean(dim=(1, 2, 3))
    torch.testing.assert_close(ssim_per_image(other, pixels), expected, rtol=1e-6, atol=1e-8)
    assert 0.2 < expected.mean() < 0.95


def test_ssim_is_that_of_scipys_filters():
    pixels = smooth_pixels(1, 32, 1)
    x, y = noisy(pixels)[0, :, :, 0].double().numpy(), pixels[0, :, :, 0].double().numpy()

    def window_means(values):
        return gaussian_filter(values, 1.5, radius=5)[5:-5, 5:-5]

    mx, my = window_means(x), window_means(y)
    vx, vy, cov = window_means(x * x) - mx**2, window_means(y * y) - my**2, window_means(x * y) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    expected = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim_per_image(noisy(pixels), pixels).item() == pytest.approx(expected, rel=1e-9)


def test_psnr_is_the_mean_over_images_of_known_errors():
    pixels = torch.full((2, 16, 16, 1), 100, dtype=torch.uint8)
    changed = pixels + torch.tensor([5, 50], dtype=torch.uint8)[:, None, None, None]
    found = measure_reconstruction(changed, pixels)
    assert found.psnr.tolist() == pytest.approx([20 * math.log10(255 / 5), 20 * math.log10(255 / 50)])
    assert found.mse.tolist() == [25, 2500]


def test_equal_images_have_finite_psnr_and_ssim_one():
    pixels = random_pixels(3, 32, 32, 3)
    found = measure_reconstruction(pixels, pixels)
    assert found.psnr.tolist() == pytest.approx([120] * 3) and found.ssim.tolist() == pytest.approx([1] * 3)


def test_images_smaller_than_the_window_have_no_ssim_and_other_shapes_are_refused():
    pixels = random_pixels(2, 8, 8, 1)
    assert measure_reconstruction(pixels, pixels).ssim.isnan().all()
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim_per_image(pixels, pixels)
    with pytest.raises(ValueError, match="shape of their images"):
        measure_reconstruction(pixels[:1], pixels)

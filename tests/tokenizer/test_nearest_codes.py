"""Nearest codes compared with a search in float64. Shapes: v vectors, d code width, k codebook size."""

import pytest
import torch

from components.tokenizer import nearest_codes as module
from components.tokenizer.nearest_codes import nearest_codes


def float64_distances(vectors, codebook):
    return torch.cdist(vectors.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")


def test_nearest_codes_are_the_argmin_of_float64_distances():
    torch.manual_seed(0)
    vectors, codebook = torch.randn(5000, 8), torch.randn(40, 8)
    assert torch.equal(nearest_codes(vectors, codebook), float64_distances(vectors, codebook).argmin(1))


def test_nearest_codes_far_from_zero_are_the_argmin_up_to_rounding():
    """Products near 300^2 * 8 round to about 1/16 in float32: the choice among codes that close depends on the CPU."""
    torch.manual_seed(0)
    vectors, codebook = torch.randn(5000, 8) + 300, torch.randn(40, 8) + 300
    distances, codes = float64_distances(vectors, codebook), nearest_codes(vectors, codebook)
    excess = distances.gather(1, codes[:, None])[:, 0].square() - distances.amin(1).square()
    assert excess.max() < 0.01 and (codes == distances.argmin(1)).double().mean() > 0.99


@pytest.mark.parametrize("size", [64, 128, 192, 200, 512])
def test_nearest_codes_take_the_first_of_equal_distances(size):
    codebook = torch.randn(size, 8).round().repeat(2, 1)[:size]  # the second half repeats the first
    codebook[size // 2 :] = codebook[: size - size // 2]
    vectors = torch.randn(300, 8)
    expected = torch.cdist(vectors.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(nearest_codes(vectors, codebook), expected)


def test_nearest_codes_do_not_depend_on_the_chunk_size(monkeypatch):
    vectors, codebook = torch.randn(1000, 8), torch.randn(16, 8)
    whole = nearest_codes(vectors, codebook)
    monkeypatch.setattr(module, "DISTANCES_CPU", 7 * 16)
    assert torch.equal(nearest_codes(vectors, codebook), whole)

import math

import pytest
import torch

from components.priors.noise import gumbel_noise, splitmix64


def reference_splitmix64(x: int) -> int:
    """The published generator's step, in Python's unbounded integers."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def test_mix_is_splitmix64():
    assert reference_splitmix64(0) == 0xE220A8397B1DCDAF  # the generator's published first output for seed 0
    values = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), 123456789])
    assert [value % 2**64 for value in splitmix64(values).tolist()] == [
        reference_splitmix64(value % 2**64) for value in values.tolist()
    ]


def test_noise_has_the_gumbel_distribution():
    noise = gumbel_noise(torch.arange(500), level=1, row=3, width=4, codebook_size=50).flatten()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)
    empirical = torch.searchsorted(noise.sort().values, torch.tensor([-1.0, 0.0, 1.0, 3.0], dtype=noise.dtype))
    expected = torch.exp(-torch.exp(-torch.tensor([-1.0, 0.0, 1.0, 3.0])))
    torch.testing.assert_close(empirical / len(noise), expected, atol=0.005, rtol=0)


def test_neighbouring_seeds_levels_and_rows_share_nothing():
    def noise(seed: int, level: int, row: int) -> torch.Tensor:
        return gumbel_noise(torch.tensor([seed]), level=level, row=row, width=100, codebook_size=100).flatten()

    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (2**32, 0, 0)]
    streams = torch.stack([noise(*key) for key in keys])
    off_diagonal = torch.corrcoef(streams) - torch.eye(6)
    assert off_diagonal.abs().max() < 0.04
    assert torch.isfinite(streams).all()


def test_an_images_noise_depends_on_its_own_seed_alone():
    shape = {"level": 0, "row": 2, "width": 3, "codebook_size": 5}
    batch = gumbel_noise(torch.tensor([7, 8, 9]), **shape)
    assert torch.equal(batch[1:2], gumbel_noise(torch.tensor([8]), **shape))

"""Code length of codes whose cost is known, and compared with a sum over single codes."""

import math

import numpy as np
import pytest

from components.evaluation.measures.bits import bits_per_dimension


def test_uniform_codes_cost_log2_of_the_codebook_size():
    nats = [math.log(512), math.log(256)]  # 9 and 8 bits per code
    bits = bits_per_dimension(nats, [1024, 4096], 256 * 256 * 3)
    assert bits == pytest.approx((9 * 1024 + 8 * 4096) / 196608)


def test_it_is_the_mean_information_of_single_codes_in_bits():
    rng = np.random.default_rng(0)
    probabilities = [rng.uniform(0.01, 1, (7, *shape)) for shape in ((4, 4), (8, 8))]  # of the codes of 7 images
    per_image = [sum(-np.log2(level[i]).sum() for level in probabilities) for i in range(7)]
    nats = [float(-np.log(level).mean()) for level in probabilities]
    assert bits_per_dimension(nats, [16, 64], 16 * 16 * 3) == pytest.approx(np.mean(per_image) / 768)

"""Code length of codes whose cost is known."""

import math

import pytest

from components.evaluation.measures.bits import bits_per_dimension


def test_uniform_codes_cost_log2_of_the_codebook_size():
    nats = [math.log(512), math.log(256)]  # 9 and 8 bits per code
    bits = bits_per_dimension(nats, [1024, 4096], 256 * 256 * 3)
    assert bits == pytest.approx((9 * 1024 + 8 * 4096) / 196608)

"""The held-out split: its fraction, its stability, and the refusal of an empty split."""

import pytest

from components.images.split import HELD_OUT, check_splits, split_of

KEYS = [f"class/{number}.png" for number in range(5000)]


def test_the_held_out_fraction_is_as_configured():
    splits = [split_of(key, 0.2) for key in KEYS]
    assert abs(splits.count(HELD_OUT) / len(KEYS) - 0.2) < 0.02


def test_a_larger_fraction_keeps_the_held_out_images():
    held = {key for key in KEYS if split_of(key, 0.1) == HELD_OUT}
    assert held and all(split_of(key, 0.3) == HELD_OUT for key in held)


@pytest.mark.parametrize("keys", [[], ["a"], KEYS[:3]])
def test_an_empty_split_is_refused(keys):
    with pytest.raises(ValueError, match=r"both splits must hold images, got .* to train on"):
        check_splits([split_of(key, 0.001) for key in keys], 0.001)

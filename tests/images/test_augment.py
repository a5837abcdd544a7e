"""Augmented copies compared with exact cases: identity, whole-pixel shifts, a quarter turn, a centred enlargement."""

import numpy as np
import pytest

from components.images import augment as module
from components.images.augment import augment
from components.images.config import AugmentConfig

STRONG = AugmentConfig(copies=9, degrees=30, scale=0.3, shift=0.3)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def augment_with_draws(monkeypatch, pixels, config, *draws):
    """The augmented image for given random draws: rotation, scale, shift right, shift down."""
    monkeypatch.setattr(module, "_draws", lambda *_: np.array(draws))
    return augment(pixels, config, seed=0, key="a", copy=1)


def test_copy_zero_and_zero_strength_leave_the_image_untouched(pixels):
    assert augment(pixels, STRONG, seed=1, key="a", copy=0) is pixels
    assert (augment(pixels, AugmentConfig(copies=2), seed=1, key="a", copy=1) == pixels).all()


def test_a_shift_of_whole_pixels_repeats_the_edge(monkeypatch, pixels):
    shifted = augment_with_draws(monkeypatch, pixels, AugmentConfig(copies=2, shift=0.25), 0, 0, 1, 0)
    expected = np.pad(pixels, ((0, 0), (4, 0), (0, 0)), mode="edge")[:, :16]
    assert (shifted == expected).all()


def test_a_quarter_turn_of_a_square_is_exact(monkeypatch, pixels):
    square = pixels[:, :12, :1]
    turned = augment_with_draws(monkeypatch, square, AugmentConfig(copies=2, degrees=90), 1, 0, 0, 0)
    assert (turned == np.rot90(square, -1)).all()


def test_enlarging_doubles_the_middle(monkeypatch):
    wide = np.zeros((32, 32, 1), np.uint8)
    wide[12:20, 8:24] = 200
    larger = augment_with_draws(monkeypatch, wide, AugmentConfig(copies=2, scale=1.0), 0, 1, 0, 0)
    assert (larger[10:22] > 100).all() and (larger[[2, 29]] < 20).all()


def test_a_constant_image_stays_constant_under_any_augmentation():
    grey = np.full((16, 16, 3), 77, np.uint8)
    wild = AugmentConfig(copies=99, degrees=180, scale=2, shift=1)
    assert all((augment(grey, wild, seed=0, key="k", copy=copy) == 77).all() for copy in range(1, 40))


def test_copies_depend_only_on_seed_key_and_copy(pixels):
    def copies(**changes):
        return augment(pixels, STRONG, **{"seed": 1, "key": "a", "copy": 1, **changes})

    assert (copies() == copies()).all()
    assert all((copies() != copies(**change)).any() for change in ({"seed": 2}, {"key": "b"}, {"copy": 2}))


def test_draws_are_uniform_between_minus_one_and_one():
    draws = np.concatenate([module._draws(0, str(key), 1) for key in range(2000)])
    assert draws.min() >= -1 and draws.max() < 1
    assert abs(draws.mean()) < 0.03 and abs(draws.std() - 3**-0.5) < 0.02


def test_a_flip_alone_mirrors_the_odd_copies(pixels):
    config = AugmentConfig(copies=4, flip=True)
    copies = [augment(pixels, config, seed=1, key="a", copy=copy) for copy in range(4)]
    mirrored = np.stack([row[::-1] for row in pixels])
    assert [(copy == mirrored).all() for copy in copies] == [False, True, False, True]
    assert (copies[2] == pixels).all()


def test_half_of_the_moved_copies_are_mirrored():
    ramp = np.repeat(np.arange(16, dtype=np.uint8)[None, :, None] * 15, 16, axis=0)  # brighter to the right
    config = AugmentConfig(copies=2, degrees=5, shift=0.05, flip=True)
    copies = [augment(ramp, config, seed=1, key=str(key), copy=1).astype(int) for key in range(400)]
    brighter_left = [copy[:, :8].sum() > copy[:, 8:].sum() for copy in copies]
    assert 160 < sum(brighter_left) < 240  # four standard deviations of 400 fair coins


def test_a_mirrored_copy_is_the_unmirrored_copy_of_the_mirrored_image(monkeypatch, pixels):
    draws = (0.3, -0.5, 0.2, 0.7)
    monkeypatch.setattr(module, "_mirrored", lambda *_: True)
    flipped = augment_with_draws(monkeypatch, pixels, AugmentConfig(copies=2, degrees=30, shift=0.2, flip=True), *draws)
    plain = AugmentConfig(copies=2, degrees=30, shift=0.2)
    assert (flipped == augment_with_draws(monkeypatch, pixels[:, ::-1].copy(), plain, *draws)).all()


def test_a_flip_without_a_copy_is_refused():
    with pytest.raises(ValueError, match="copies must be at least 2 with flip, got 1"):
        AugmentConfig(flip=True)

"""Augmented copies: one random affine map of a decoded image, fixed by (seed, key, copy)."""

import hashlib
import math

import numpy as np
from PIL import Image

from components.images.config import AugmentConfig


def augment(pixels: np.ndarray, config: AugmentConfig, *, seed: int, key: str, copy: int) -> np.ndarray:
    """Copy number `copy` of `pixels`, uint8 (h, w, c); copy 0 is the image itself.

    Rotation, scale and shift are one affine map about the centre, sampled once (bicubic); what comes in from outside
    repeats the nearest edge pixel.
    """
    if copy == 0:
        return pixels
    height, width, _ = pixels.shape
    to_source = _inverse(config, _draws(seed, key, copy), height, width)
    corners = np.array([(x, y, 1.0) for x in (0, width) for y in (0, height)]).T
    outside = max(0.0, -(to_source @ corners).min(), ((to_source @ corners).T - (width, height)).max())
    margin = math.ceil(outside) + 2  # the bicubic filter reaches two pixels further
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    to_source[:, 2] += margin
    planes = [_transformed(plane, to_source, (width, height)) for plane in np.moveaxis(padded, 2, 0)]
    return np.stack(planes, -1)


def _transformed(plane: np.ndarray, to_source: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """In floats: Pillow cuts the fraction off 8-bit results, which would leave every copy half a level darker."""
    image = Image.fromarray(plane.astype(np.float32))
    moved = image.transform(size, Image.Transform.AFFINE, tuple(to_source.ravel()), Image.Resampling.BICUBIC)
    return np.rint(np.clip(np.asarray(moved), 0, 255)).astype(np.uint8)


def _draws(seed: int, key: str, copy: int) -> np.ndarray:
    """Four numbers in [-1, 1) from a hash: no generator's state, so any worker may make any copy."""
    hashed = hashlib.sha256(f"{seed} {copy} {key}".encode()).digest()
    return np.frombuffer(hashed, dtype=">u8") / 2.0**63 - 1


def _inverse(config: AugmentConfig, draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """2x3 matrix from a pixel's place in the copy to its place in the image, both as (x, y, 1)."""
    turn, size, right, down = draws
    angle = math.radians(config.degrees * turn)
    factor = (1 + config.scale) ** size
    linear = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / factor
    centre = np.array([width / 2, height / 2])
    shift = config.shift * np.array([right * width, down * height])
    return np.column_stack([linear, centre - linear @ (centre + shift)])

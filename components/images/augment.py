"""Augmented copies: a decoded image, perhaps mirrored, under one random affine map, fixed by (seed, key, copy)."""

import hashlib
import math

import numpy as np
from PIL import Image

from components.images.config import AugmentConfig


def augment(pixels: np.ndarray, config: AugmentConfig, *, seed: int, key: str, copy: int) -> np.ndarray:
    """Copy number `copy` of `pixels`, uint8 (h, w, c); copy 0 is the image itself.

    Rotation, scale and shift make one affine map about the centre, so that pixels are resampled once (bicubic). Pixels
    from outside the image repeat the nearest edge pixel.
    """
    if copy == 0:
        return pixels
    if config.flip and _mirrored(config, seed, key, copy):
        pixels = pixels[:, ::-1]  # (h, w, c)
    if not config.moves:
        return np.ascontiguousarray(pixels)
    height, width, _ = pixels.shape
    to_source = _copy_to_source(config, _draws(seed, key, copy), height, width)  # (2, 3)
    corners = np.array([(x, y, 1.0) for x in (0, width) for y in (0, height)]).T  # (3, 4)
    # Pixels by which the copy's corners reach beyond the image, whose positions are 0 .. width and 0 .. height.
    outside = max(0.0, -(to_source @ corners).min(), ((to_source @ corners).T - (width, height)).max())
    margin = math.ceil(outside) + 2  # the bicubic filter reaches two pixels further
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")  # (h + 2m, w + 2m, c)
    to_source[:, 2] += margin  # from now on, positions in the padded image
    planes = [_transformed(plane, to_source, (width, height)) for plane in np.moveaxis(padded, 2, 0)]  # c times (h, w)
    return np.stack(planes, -1)  # (h, w, c)


def _transformed(plane: np.ndarray, to_source: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample in floats: Pillow truncates 8-bit results, which would make every copy half a grey value darker."""
    image = Image.fromarray(plane.astype(np.float32))
    moved = image.transform(size, Image.Transform.AFFINE, tuple(to_source.ravel()), Image.Resampling.BICUBIC)
    return np.rint(np.clip(np.asarray(moved), 0, 255)).astype(np.uint8)


def _mirrored(config: AugmentConfig, seed: int, key: str, copy: int) -> bool:
    """Whether the copy shows the mirror image. Copies that differ in nothing else take turns: none is drawn twice."""
    if not config.moves:
        return copy % 2 == 1
    # A hash of its own: the four draws of the affine map use all bytes of theirs.
    return hashlib.sha256(f"flip {seed} {copy} {key}".encode()).digest()[0] % 2 == 1


def _draws(seed: int, key: str, copy: int) -> np.ndarray:
    """Float64 (4,) in [-1, 1), from a hash: without generator state, any worker can make any copy."""
    hashed = hashlib.sha256(f"{seed} {copy} {key}".encode()).digest()  # 32 bytes: four 64-bit numbers
    return np.frombuffer(hashed, dtype=">u8") / 2.0**63 - 1


def _copy_to_source(config: AugmentConfig, draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """2x3 matrix that takes a position (x, y, 1) in the copy to the position (x, y) in the image that it shows."""
    turn, size, right, down = draws
    angle = math.radians(config.degrees * turn)
    factor = (1 + config.scale) ** size  # from 1 / (1 + scale) to 1 + scale
    linear = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / factor  # (2, 2)
    centre = np.array([width / 2, height / 2])  # (x, y)
    shift = config.shift * np.array([right * width, down * height])  # (x, y) in pixels
    # A position p in the copy shows position linear (p - shift - centre) + centre of the image.
    return np.column_stack([linear, centre - linear @ (centre + shift)])

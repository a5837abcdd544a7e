"""Which images are held out: decided by each key alone, so that a growing dataset moves no image between the splits."""

import hashlib
from collections.abc import Sequence

from components.config import require

TRAIN = "train"
HELD_OUT = "held_out"


def split_of(key: str, held_out: float) -> str:
    """'held_out' for a fraction `held_out` of all keys, 'train' for the others."""
    hashed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")  # uniform in 0..2^64-1
    # A larger held_out only moves images from 'train' to 'held_out', never back.
    return HELD_OUT if hashed / 2**64 < held_out else TRAIN


def check_splits(splits: Sequence[str], held_out: float) -> None:
    """Raise ValueError when one of the two splits is empty."""
    held_out_images = splits.count(HELD_OUT)
    require(
        0 < held_out_images < len(splits),
        f"both splits must hold images, got {len(splits) - held_out_images} to train on and {held_out_images} held out "
        f"with images.held_out={held_out}: add images or change images.held_out",
    )

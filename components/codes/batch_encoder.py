"""A tokenizer prepared for encoding at full speed: pixels in, code maps out.

Every batch is padded to the same shape, so that torch.compile compiles once, and so that an image's codes do not depend
on how many others are in its batch.
"""

import threading

import numpy as np
import torch
from torch import Tensor

from components.config import require
from components.images.tensors import to_images
from components.tokenizer.model import Tokenizer


class BatchEncoder:
    """Encodes batches. Threads may share it: a lock lets one compute at a time."""

    def __init__(self, model: Tokenizer, *, batch_size: int, precision: str, device: str) -> None:
        self._model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._batch_size, self._device = batch_size, device
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        # All batches have one shape: a static graph is compiled once and is the fastest.
        self._run = torch.compile(self._codes, dynamic=False) if device == "cuda" else self._codes
        self._lock = threading.Lock()

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """uint8 pixels (n, height, width, c) -> int64 code maps (n, h, w) per level, top first; float32 errors (n,).

        An image's error is the mean squared distance between encoder outputs and codebook vectors, summed over levels.
        Raises ValueError unless n lies in 1..batch_size.
        """
        n = len(pixels)
        require(1 <= n <= self._batch_size, f"a batch must hold 1 to {self._batch_size} images, got {n}")
        # Pinned memory lets the copy to the GPU overlap with other work.
        padded = torch.zeros(
            (self._batch_size, *pixels.shape[1:]), dtype=torch.uint8, pin_memory=self._device == "cuda"
        )  # (batch_size, height, width, c)
        padded[:n] = torch.from_numpy(pixels)
        with self._lock:
            maps, errors = self._run(padded.to(self._device, non_blocking=True))
            return [codes[:n].cpu().numpy() for codes in maps], errors[:n].cpu().numpy()

    def _codes(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        images = to_images(pixels)  # (batch_size, c, height, width), permuted: channels_last without a copy
        with torch.autocast(self._device, dtype=self._dtype, enabled=self._dtype is not torch.float32):
            return self._model.encode_with_error(images)

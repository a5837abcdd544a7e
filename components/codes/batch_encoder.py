"""A tokenizer set up to encode: pixels in, code maps out, at the speed of its processor.

Every batch has the same shape, so that a compiled model is compiled once, and so that an image's codes do not depend on
how many others there are.
"""

import threading

import numpy as np
import torch
from torch import Tensor

from components.config import require
from components.tokenizer.model import Tokenizer, to_images


class BatchEncoder:
    """Encodes batches; threads may share it, one at a time enters."""

    def __init__(self, model: Tokenizer, *, batch_size: int, precision: str, device: str) -> None:
        self._model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._batch_size, self._device = batch_size, device
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._run = torch.compile(self._codes, dynamic=False) if device == "cuda" else self._codes
        self._turn = threading.Lock()

    @torch.no_grad()
    def __call__(self, pixels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Pixels uint8 (n, height, width, c), n up to batch_size -> int64 (n, h, w) a level, errors float32 (n)."""
        n = len(pixels)
        require(1 <= n <= self._batch_size, f"a batch must hold 1 to {self._batch_size} images, got {n}")
        stored = torch.zeros(
            (self._batch_size, *pixels.shape[1:]), dtype=torch.uint8, pin_memory=self._device == "cuda"
        )
        stored[:n] = torch.from_numpy(pixels)
        with self._turn:
            maps, errors = self._run(stored.to(self._device, non_blocking=True))
            return [codes[:n].cpu().numpy() for codes in maps], errors[:n].cpu().numpy()

    def _codes(self, stored: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        images = to_images(stored)  # permuted from (n, height, width, c): channels_last without a copy
        with torch.autocast(self._device, dtype=self._dtype, enabled=self._dtype is not torch.float32):
            return self._model.encode_with_error(images)

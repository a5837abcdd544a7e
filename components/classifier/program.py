"""A classifier that the user brings, as an exported torch program.

Reading and calling it runs torch's own operators, and no code of the file (components/store/programs.py).
Shapes: n images, c channels, h w sides, y classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from components.config import require
from components.store.programs import load_program


class ProgramClassifier(nn.Module):
    """Images float (n, c, h, w) in [-1, 1] -> logits (n, y), by a program that torch.export wrote."""

    def __init__(self, data: bytes, *, channels: int, classes: int) -> None:
        """`data` is the content of a .pt2 file. Raises ValueError for anything else, and for one that may run code."""
        super().__init__()
        self.module = load_program(data, "a classifier's program")
        self.channels, self.classes = channels, classes

    def train(self, mode: bool = True) -> "ProgramClassifier":
        """Set the mode of this module only: an exported program has one mode, and its own train() raises."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)

    @torch.no_grad()
    def check(self, image_size: int) -> None:
        """Raise ValueError unless it gives finite logits (n, y) for any number n of images of this size."""
        for count in (1, 2, 5):  # a program that was exported for one batch size fails at another
            images = torch.zeros(count, self.channels, image_size, image_size)
            wanted = f"logits ({count}, {self.classes}) for float images {tuple(images.shape)} in [-1, 1]"
            try:
                got: Any = self(images)
            except Exception as error:  # a program can raise anything
                raise ValueError(
                    f"a classifier's program must give {wanted}, but failed: {error}: export it with a dynamic first "
                    "dimension: torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.AUTO},))"
                ) from error
            fits = isinstance(got, Tensor) and tuple(got.shape) == (count, self.classes)
            shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            require(fits, f"a classifier's program must give {wanted}, got {shape}: was it made for other classes?")
            finite = bool(torch.isfinite(got).all())
            require(finite, f"a classifier's program must give finite {wanted}, got NaN or infinity for black images")

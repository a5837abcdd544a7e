"""A classifier that the user brings, as an exported torch program.

Reading a program may run code: trust it as much as the config that names it.
Shapes: n images, c channels, h w sides, y classes.
"""

import io
from typing import Any

import torch
from torch import Tensor, nn

from components.config import require


class ProgramClassifier(nn.Module):
    """Images float (n, c, h, w) in [-1, 1] -> logits (n, y), by a program that torch.export wrote."""

    def __init__(self, data: bytes, *, channels: int, classes: int) -> None:
        """`data` is the content of a .pt2 file. Raises ValueError for anything else."""
        super().__init__()
        try:
            exported = torch.export.load(io.BytesIO(data))
        except Exception as error:  # a broken archive can make the reader raise anything
            raise ValueError(
                f"a classifier's program must be what torch.export.save wrote, but {len(data)} bytes cannot be read: "
                f"{type(error).__name__}: {error}"
            ) from error
        self.channels, self.classes = channels, classes
        self.module = exported.module()

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

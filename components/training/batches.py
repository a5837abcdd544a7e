"""Batches that the training loop passes to an objective. Shapes: n samples, h w sides, c channels."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ImageBatch:
    """Images as they are stored."""

    pixels: Tensor
    """uint8 (n, h, w, c)."""
    labels: Tensor
    """int64 (n,); -1 where an image has no label."""

    def to(self, device: str) -> "ImageBatch":
        """The same batch on `device`."""
        return ImageBatch(self.pixels.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


@dataclass(frozen=True)
class CodeBatch:
    """Code maps of the same images, all levels."""

    maps: tuple[Tensor, ...]
    """int64 (n, h, w) per level, top first."""
    labels: Tensor
    """int64 (n,); -1 where an image has no label."""

    def to(self, device: str) -> "CodeBatch":
        """The same batch on `device`."""
        maps = tuple(codes.to(device, non_blocking=True) for codes in self.maps)
        return CodeBatch(maps, self.labels.to(device, non_blocking=True))

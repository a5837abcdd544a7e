"""Generated images, and drawing them in chunks. Shapes: n images, h w sides of an image or a code map, c channels."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DrawReport = Callable[[int, int], None]
"""Called with the number of images drawn so far and of images in all."""


def no_report(drawn: int, total: int) -> None:
    """The DrawReport that does nothing."""


@dataclass(frozen=True)
class Samples:
    """Generated images and everything that determines them."""

    pixels: Tensor
    """uint8 (n, h, w, c)."""
    labels: Tensor
    """int64 (n,): the requested class of each image; 0 where the generator has no classes."""
    seeds: Tensor
    """int64 (n,): the seed of each image; the same class and seed give the same image."""
    maps: tuple[Tensor, ...]
    """int64 (n, h, w) per level, top first."""
    probability: Tensor
    """float (n,): the classifier's probability of the requested class; 1 without a classifier."""

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def join(cls, parts: Sequence["Samples"]) -> "Samples":
        """All samples of `parts`, at least one, in their order."""
        return cls(
            pixels=torch.cat([part.pixels for part in parts]),  # (n, h, w, c)
            labels=torch.cat([part.labels for part in parts]),  # (n,)
            seeds=torch.cat([part.seeds for part in parts]),  # (n,)
            maps=tuple(torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True)),  # (n, h, w)
            probability=torch.cat([part.probability for part in parts]),  # (n,)
        )

    def take(self, indices: Tensor) -> "Samples":
        """The samples at `indices` int64 (m,), in that order."""
        return self._map(lambda tensor: tensor[indices])

    def cpu(self) -> "Samples":
        """The same samples in main memory."""
        return self._map(lambda tensor: tensor.cpu())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Samples":
        return Samples(
            change(self.pixels),
            change(self.labels),
            change(self.seeds),
            tuple(map(change, self.maps)),
            change(self.probability),
        )


@dataclass(frozen=True)
class DrawRequest:
    """Images to draw, one per label and seed."""

    labels: Tensor
    """int64 (n,)."""
    seeds: Tensor
    """int64 (n,)."""
    given: tuple[Tensor, ...] = ()
    """Code maps int64 (n, h, w) of the upper levels, top first; a code of -1 is drawn."""

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, size: int) -> list["DrawRequest"]:
        """The same images in chunks of `size`; the last chunk may be smaller."""
        given = [level.split(size) for level in self.given]
        parts = zip(self.labels.split(size), self.seeds.split(size), strict=True)
        return [
            DrawRequest(labels, seeds, tuple(level[index] for level in given))
            for index, (labels, seeds) in enumerate(parts)
        ]


def join_chunks(chunks: Iterable[tuple[int, Samples]], total: int, report: DrawReport = no_report) -> Samples:
    """All samples in main memory, in the order of their chunks' numbers.

    `chunks` are pairs of number and samples, in the order in which they are drawn. They are moved to main memory as
    they come, so that an accelerator holds one chunk at a time. `report` is called before the first chunk and after
    each one; `total` is the number of images in all chunks.
    """
    drawn: dict[int, Samples] = {}
    report(0, total)
    for number, samples in chunks:
        drawn[number] = samples.cpu()
        report(sum(len(part) for part in drawn.values()), total)
    return Samples.join([drawn[number] for number in sorted(drawn)])

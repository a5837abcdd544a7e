"""A look at the images of a config before anything starts, for `validate` and `plan`: listed, counted, a few opened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from components.errors import ConfigError
from components.images.commit import check_trainable, plan_listing
from components.images.config import ImagesConfig
from components.images.rejects import Reject, inspect_rows
from components.images.sources.registry import SOURCES, list_images

OPENED_IMAGES = 8
"""Images that are opened, evenly spread over the listing."""
CLASSES_LISTED = 10
"""Classes whose images are counted in the text."""


@dataclass(frozen=True, kw_only=True)
class ImagesLook:
    """What a look at the images showed."""

    uri: str
    images: int
    ignored: int
    """Files passed over."""
    class_sizes: tuple[tuple[str, int], ...]
    """Name and images of each class; empty where the images have no labels."""
    opened: int
    unusable: tuple[Reject, ...]
    """Those of the opened images that cannot be used."""

    def describe(self) -> Iterator[str]:
        """Lines of text."""
        passed_over = f", {self.ignored:,} other files passed over" if self.ignored else ""
        yield f"{self.images:,} images in {self.uri}{passed_over}"
        yield self._describe_classes()
        if self.unusable:
            first = self.unusable[0]
            example = f"for example {first.key}: {first.reason}: {first.error}"
            yield f"{len(self.unusable)} of {self.opened} that were opened cannot be used, {example}"
        else:
            yield f"all {self.opened} that were opened can be used"

    def _describe_classes(self) -> str:
        if not self.class_sizes:
            return "no labels: the model has no classes, no sample is rejected, and the judge tells rotations apart"
        sizes = [size for _, size in self.class_sizes]
        listed = ", ".join(f"{name} {size:,}" for name, size in self.class_sizes[:CLASSES_LISTED])
        more = ", ..." if len(sizes) > CLASSES_LISTED else ""
        if len(sizes) == 1:
            return f"one class ({listed}): no sample is rejected, and the judge tells rotations apart"
        return f"{len(sizes):,} classes of {min(sizes):,} to {max(sizes):,} images: {listed}{more}"


def look_at_images(config: ImagesConfig, source: str, outputs: Sequence[str] = ()) -> ImagesLook | None:
    """List the images and open a few; None where they come with the project.

    Files below `outputs` are no images. Raises ConfigError when no model can be fitted to them, StorageError when they
    cannot be read; `source` is the name of the config in the error.
    """
    if SOURCES[config.source].bundled:
        return None
    try:
        return _look(config, outputs)
    except ValueError as error:
        raise ConfigError(source, [f"images: {error}"]) from None


def _look(config: ImagesConfig, outputs: Sequence[str]) -> ImagesLook:
    listing = list_images(config, "", outputs)
    plan = plan_listing(listing, [], config)
    check_trainable(plan, listing.classes, config)
    count = listing.rows
    opened = np.unique(np.linspace(0, count - 1, OPENED_IMAGES).astype(np.int64))  # row numbers, rising
    unusable = inspect_rows(listing.rows_at(opened.tolist()), config).rejects
    if len(unusable) == len(opened):
        raise ValueError(
            f"images must be usable, got none of {len(opened)} that were opened, for example {unusable[0].key}: "
            f"{unusable[0].reason}: {unusable[0].error}"
        )
    sizes = plan.counts[:-1].sum(1).tolist()  # images of each class
    return ImagesLook(
        uri=str(config.uri),
        images=count,
        ignored=listing.ignored,
        class_sizes=tuple(zip(listing.classes, sizes, strict=True)),
        opened=len(opened),
        unusable=tuple(unusable),
    )

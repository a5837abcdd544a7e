"""Ancestral sampling: Algorithm 2, lines 10-14, for any number of levels.

Shapes: n images, h w sides of an image or a code map, c channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.classifier.model import Classifier
from components.classifier.program import ProgramClassifier
from components.config import require
from components.priors.choice import AS_FITTED, SamplingConfig
from components.priors.conditioning import MapSpec
from components.priors.model import Prior
from components.priors.sampler import Sampler
from components.tokenizer.model import Tokenizer, to_images, to_pixels

Rejector = Classifier | ProgramClassifier
"""What scores samples: fitted here, or the user's own."""


@dataclass(frozen=True)
class Samples:
    """Generated images and all that made them."""

    pixels: Tensor
    """uint8 (n, h, w, c)."""
    labels: Tensor
    """int64 (n,): the class that each was asked to be."""
    seeds: Tensor
    """int64 (n,): what each was drawn from; class and seed give the image again."""
    maps: tuple[Tensor, ...]
    """int64 (n, h, w) a level, top first."""
    probability: Tensor
    """float (n,): the classifier's probability of the class asked for."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Samples":
        """The samples at `indices` int64 (m,), in that order."""
        return self._each(lambda tensor: tensor[indices])

    def cpu(self) -> "Samples":
        """The same samples in main memory."""
        return self._each(lambda tensor: tensor.cpu())

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Samples":
        return Samples(
            change(self.pixels),
            change(self.labels),
            change(self.seeds),
            tuple(map(change, self.maps)),
            change(self.probability),
        )


class Generator(nn.Module):
    """Class and seed -> image: the priors draw code maps, the tokenizer decodes them, the classifier scores them."""

    def __init__(
        self, tokenizer: Tokenizer, priors: Sequence[Prior], classifier: Rejector, classes: Sequence[str]
    ) -> None:
        """`priors` top first; `classes` are the names of the classes 0, 1, ...

        Raises ValueError when the parts were not made for each other.
        """
        super().__init__()
        self.tokenizer, self.classifier, self.classes = tokenizer, classifier, tuple(classes)
        self.priors = nn.ModuleList(priors)
        _check_parts(tokenizer, priors, classifier, self.classes)
        self.eval()

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        seeds: Tensor,
        *,
        choice: SamplingConfig = AS_FITTED,
        batch: int = 64,
        given: Sequence[Tensor] = (),
    ) -> Samples:
        """One image a label int64 (n,) and seed int64 (n,), `batch` at a time.

        Each depends on its own label and seed, not on the others of its batch (but for rounding in the last bit, which
        may differ between batch sizes). `given` holds code maps int64 (n, h, w) of the upper levels, top first: their
        codes are kept but for those that are -1, which are drawn, as are all of the levels that it leaves out.
        """
        _check_request(labels, seeds, batch, len(self.classes))
        count = len(given) <= len(self.priors)
        require(count, f"given must hold at most a code map a level ({len(self.priors)}), got {len(given)}")
        device = next(self.parameters()).device
        labels, seeds = labels.to(device), seeds.to(device)
        size = min(batch, len(labels))
        samplers = [Sampler(prior, size, choice) for prior in cast(list[Prior], list(self.priors))]
        starts = range(0, len(labels), batch)
        kept = [[level[start : start + batch].to(device) for level in given] for start in starts]
        parts = [
            self._sample_batch(samplers, some, own, maps)
            for some, own, maps in zip(labels.split(batch), seeds.split(batch), kept, strict=True)
        ]  # Algorithm 2, lines 10 and 14: while true do ... end while, here until there are enough
        maps = tuple(torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True))
        return Samples(
            torch.cat([part.pixels for part in parts]),
            labels,
            seeds,
            maps,
            torch.cat([part.probability for part in parts]),
        )

    @torch.no_grad()
    def resample(
        self,
        images: Tensor,
        labels: Tensor,
        seeds: Tensor,
        *,
        kept_levels: int,
        choice: SamplingConfig = AS_FITTED,
        batch: int = 64,
    ) -> Samples:
        """Images that share their upper `kept_levels` code maps with real `images` float (n, c, height, width)."""
        levels = len(self.priors)
        require(0 < kept_levels <= levels, f"kept_levels must lie in 1 .. {levels}, got {kept_levels}")
        maps = self._encode(images, labels, batch)
        return self.sample(labels, seeds, choice=choice, batch=batch, given=maps[:kept_levels])

    @torch.no_grad()
    def complete(
        self,
        images: Tensor,
        labels: Tensor,
        seeds: Tensor,
        *,
        known: Tensor,
        choice: SamplingConfig = AS_FITTED,
        batch: int = 64,
    ) -> Samples:
        """Images whose unknown part is drawn anew; `known` bool (height, width) says which pixels are to be kept.

        A code is kept where all pixels that it stands for are known. A prior knows the codes above and to the left in
        raster order, so the lower part of an image follows from its upper part, not the upper from the lower. Encoders
        look past their own pixels: paint the unknown part over where it must not shine through.
        """
        shape = tuple(images.shape[2:])
        fits = known.dtype == torch.bool and tuple(known.shape) == shape
        require(fits, f"known must be bool {shape} as the images are, got {known.dtype} {tuple(known.shape)}")
        maps, given = self._encode(images, labels, batch), []
        for codes, level in zip(maps, self.tokenizer.config.levels, strict=True):
            unknown = F.max_pool2d((~known)[None].float(), level.stride)[0] > 0
            given.append(codes.masked_fill(unknown.to(codes.device), -1))
        return self.sample(labels, seeds, choice=choice, batch=batch, given=given)

    def _encode(self, images: Tensor, labels: Tensor, batch: int) -> tuple[Tensor, ...]:
        """Code maps of images, which must have the size that the priors were fitted to, and a label each."""
        require(len(images) == len(labels), f"there must be a label an image ({len(images)}), got {len(labels)}")
        height, width = (side * self.tokenizer.config.levels[0].stride for side in cast(Prior, self.priors[0]).shape)
        fits = tuple(images.shape[2:]) == (height, width)
        require(fits, f"images must be {height}x{width}, which the priors were fitted to, got {tuple(images.shape)}")
        device = next(self.parameters()).device
        parts = [self.tokenizer.encode(some.to(device)) for some in images.split(batch)]
        return tuple(torch.cat(level) for level in zip(*parts, strict=True))

    def _sample_batch(self, samplers: list[Sampler], labels: Tensor, seeds: Tensor, given: Sequence[Tensor]) -> Samples:
        maps: list[Tensor] = []
        for level, sampler in enumerate(samplers):
            # Algorithm 2, line 11: e_top ~ p_top; line 12: e_bottom ~ p_bottom(e_top); with more levels, each given
            # all those above. The noise hangs on (seed, level), so the levels share a seed but no randomness.
            kept = given[level] if level < len(given) else None
            maps.append(sampler.sample(labels, tuple(maps), seeds, given=kept))
        pixels = to_pixels(self.tokenizer.decode(tuple(maps)))  # Algorithm 2, line 13: x <- D(e_top, e_bottom)
        return Samples(pixels, labels, seeds, tuple(maps), self._probability(pixels, labels))

    def _probability(self, pixels: Tensor, labels: Tensor) -> Tensor:
        # From the rounded pixels: the score must be the one that anybody gets from the stored picture.
        scores = self.classifier(to_images(pixels)).softmax(dim=1)
        return scores.gather(1, labels[:, None])[:, 0]


def _check_parts(tokenizer: Tokenizer, priors: Sequence[Prior], classifier: Rejector, classes: tuple[str, ...]) -> None:
    levels = tokenizer.config.levels
    require(len(priors) == len(levels), f"a generator needs one prior a level ({len(levels)}), got {len(priors)}")
    specs = [MapSpec(prior.shape[0], prior.shape[1], prior.codebook_size) for prior in priors]
    for index, (prior, level) in enumerate(zip(priors, levels, strict=True)):
        fits = prior.codebook_size == level.codebook_size and list(prior.above) == specs[:index]
        require(
            fits,
            f"the prior of level '{level.name}' must know {level.codebook_size} codes below {specs[:index]}, got "
            f"{prior.codebook_size} below {list(prior.above)}: was it fitted to another tokenizer's codes? Top first",
        )
    known = {"the classifier": classifier.classes} | {
        f"the prior of level '{level.name}'": prior.classes for level, prior in zip(levels, priors, strict=True)
    }
    for part, count in known.items():
        require(count == len(classes), f"{part} must know {len(classes)} classes as the generator does, got {count}")
    require(
        classifier.channels == tokenizer.channels,
        f"the classifier must read images of {tokenizer.channels} channels, got {classifier.channels}",
    )


def _check_request(labels: Tensor, seeds: Tensor, batch: int, classes: int) -> None:
    require(len(labels) > 0, "a generator needs at least one label, got none")
    require(labels.shape == seeds.shape, f"labels and seeds must be one an image, got {len(labels)} and {len(seeds)}")
    low, high = int(labels.min()), int(labels.max())
    require(low >= 0 and high < classes, f"labels must lie in 0 .. {classes - 1}, got {low} .. {high}")
    require(batch >= 1, f"batch must be at least 1, got {batch}")

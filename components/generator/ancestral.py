"""Ancestral sampling: Algorithm 2, lines 10-14, for any number of levels.

Shapes: n images, h w sides of an image or a code map, c channels, y classes.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.classifier.model import Classifier
from components.classifier.program import ProgramClassifier
from components.config import require
from components.generator.samples import DrawReport, DrawRequest, Samples, join_chunks, no_report
from components.images.tensors import to_images, to_pixels
from components.priors.conditioning import MapSpec
from components.priors.config import AS_FITTED, SamplingConfig
from components.priors.model import Prior
from components.priors.sampler import Sampler
from components.tokenizer.model import Tokenizer

Rejector = Classifier | ProgramClassifier
"""Classifier that scores samples: fitted by the pipeline, or an exported program of the user."""


class Generator(nn.Module):
    """Class and seed -> image: the priors draw code maps, the tokenizer decodes them, the classifier scores them."""

    def __init__(
        self, tokenizer: Tokenizer, priors: Sequence[Prior], classifier: Rejector | None, classes: Sequence[str]
    ) -> None:
        """`priors` are top first; `classes` are the names of the classes 0, 1, ...; none: fitted without classes.

        Without a classifier every sample has probability 1, and none is rejected.
        Raises ValueError when the parts were not made for each other.
        """
        super().__init__()
        self.tokenizer, self.classifier, self.classes = tokenizer, classifier, tuple(classes)
        self.priors = nn.ModuleList(priors)
        _check_parts(tokenizer, priors, classifier, self.classes)
        self.eval()

    @property
    def labels(self) -> range:
        """The labels of samples: one per class; without classes 0 alone, which then stands for 'no class'."""
        return range(max(1, len(self.classes)))

    def label_name(self, label: int) -> str:
        """Name of a label's class; empty without classes."""
        return self.classes[label] if self.classes else ""

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        seeds: Tensor,
        *,
        sampling: SamplingConfig = AS_FITTED,
        batch: int = 64,
        given: Sequence[Tensor] = (),
        report: DrawReport = no_report,
    ) -> Samples:
        """One image per label int64 (n,) and seed int64 (n,), drawn in chunks of `batch`; the result is in main memory.

        Each image depends on its own label and seed, not on the others of its batch (but for rounding in the last bit,
        which may differ between batch sizes). `given` holds code maps int64 (n, h, w) of the upper levels, top first:
        codes of -1 and all levels below are drawn, the other codes stay. `report` is called after each chunk.
        Raises ValueError for labels, seeds, maps or settings that do not fit the generator.
        """
        _check_request(labels, seeds, batch, len(self.labels))
        fits = len(given) <= len(self.priors)
        require(fits, f"given must hold at most one code map per level ({len(self.priors)}), got {len(given)}")
        size = min(batch, len(labels))
        # Built once for all chunks: a sampler allocates buffers for `size` images.
        samplers = [Sampler(prior, size, sampling) for prior in cast(list[Prior], list(self.priors))]
        requests = DrawRequest(labels, seeds, tuple(given)).split(batch)
        # Algorithm 2, lines 10 and 14: while true do ... end while; here until there is one image per label
        chunks = (self._sample_batch(samplers, request) for request in requests)
        return join_chunks(enumerate(chunks), len(labels), report)

    @torch.no_grad()
    def resample(
        self,
        images: Tensor,
        labels: Tensor,
        seeds: Tensor,
        *,
        kept_levels: int,
        sampling: SamplingConfig = AS_FITTED,
        batch: int = 64,
    ) -> Samples:
        """Images that share their upper `kept_levels` code maps with real `images` float (n, c, height, width)."""
        levels = len(self.priors)
        require(0 < kept_levels <= levels, f"kept_levels must lie in 1 .. {levels}, got {kept_levels}")
        maps = self._encode(images, labels, batch)
        return self.sample(labels, seeds, sampling=sampling, batch=batch, given=maps[:kept_levels])

    @torch.no_grad()
    def complete(
        self,
        images: Tensor,
        labels: Tensor,
        seeds: Tensor,
        *,
        known_pixels: Tensor,
        sampling: SamplingConfig = AS_FITTED,
        batch: int = 64,
    ) -> Samples:
        """Draw the unknown part of `images` float (n, c, height, width); `known_pixels` is bool (height, width).

        A code is kept where all pixels that it covers are known. A prior sees the codes above and to the left in
        raster order, so it can continue an image downwards, but cannot take the lower part into account when it draws
        the upper one. An encoder's receptive field exceeds the pixels that a code covers: paint over the unknown part
        if it must not influence the kept codes.
        """
        shape = tuple(images.shape[2:])
        fits = known_pixels.dtype == torch.bool and tuple(known_pixels.shape) == shape
        require(
            fits,
            f"known_pixels must be bool {shape} as the images are, got {known_pixels.dtype} "
            f"{tuple(known_pixels.shape)}",
        )
        maps, given = self._encode(images, labels, batch), []
        for codes, level in zip(maps, self.tokenizer.architecture.levels, strict=True):
            # A code covers stride x stride pixels; it is unknown when any of them is.
            unknown = F.max_pool2d((~known_pixels)[None].float(), level.stride)[0] > 0  # (h, w)
            given.append(codes.masked_fill(unknown.to(codes.device), -1))  # (n, h, w)
        return self.sample(labels, seeds, sampling=sampling, batch=batch, given=given)

    def _encode(self, images: Tensor, labels: Tensor, batch: int) -> tuple[Tensor, ...]:
        """Code maps int64 (n, h, w) of all levels; ValueError unless images have the size that the priors need."""
        require(len(images) == len(labels), f"there must be one label per image ({len(images)}), got {len(labels)}")
        top_stride = self.tokenizer.architecture.levels[0].stride
        height, width = (side * top_stride for side in cast(Prior, self.priors[0]).shape)
        fits = tuple(images.shape[2:]) == (height, width)
        require(fits, f"images must be {height}x{width}, which the priors were fitted to, got {tuple(images.shape)}")
        device = next(self.parameters()).device
        parts = [self.tokenizer.encode(part.to(device)) for part in images.split(batch)]
        return tuple(torch.cat(level) for level in zip(*parts, strict=True))

    def _sample_batch(self, samplers: list[Sampler], request: DrawRequest) -> Samples:
        device = next(self.parameters()).device
        labels, seeds = request.labels.to(device), request.seeds.to(device)
        maps: list[Tensor] = []
        for level, sampler in enumerate(samplers):
            # Algorithm 2, line 11: e_top ~ p_top; line 12: e_bottom ~ p_bottom(e_top). With more levels, each is drawn
            # given all levels above. Noise depends on (seed, level): levels share a seed but no random numbers.
            given = request.given[level].to(device) if level < len(request.given) else None
            maps.append(sampler.sample(labels, tuple(maps), seeds, given=given))  # (n, h, w)
        pixels = to_pixels(self.tokenizer.decode(tuple(maps)))  # Algorithm 2, line 13: x <- D(e_top, e_bottom)
        return Samples(pixels, labels, seeds, tuple(maps), self._probability(pixels, labels))

    def _probability(self, pixels: Tensor, labels: Tensor) -> Tensor:
        if self.classifier is None:
            return torch.ones(len(labels), device=labels.device)  # (n,)
        # From rounded pixels: classifying the stored picture gives the same score.
        scores = self.classifier(to_images(pixels)).softmax(dim=1)  # (n, y)
        return scores.gather(1, labels[:, None])[:, 0]  # (n,)


def _check_parts(
    tokenizer: Tokenizer, priors: Sequence[Prior], classifier: Rejector | None, classes: tuple[str, ...]
) -> None:
    levels = tokenizer.architecture.levels
    require(len(priors) == len(levels), f"a generator needs one prior per level ({len(levels)}), got {len(priors)}")
    # What each prior draws; a prior must condition on exactly the maps above its own.
    specs = [MapSpec(prior.shape[0], prior.shape[1], prior.codebook_size) for prior in priors]
    for index, (prior, level) in enumerate(zip(priors, levels, strict=True)):
        fits = prior.codebook_size == level.codebook_size and list(prior.above) == specs[:index]
        require(
            fits,
            f"the prior of level '{level.name}' must have {level.codebook_size} codes below {specs[:index]}, got "
            f"{prior.codebook_size} below {list(prior.above)}: was it fitted to another tokenizer's codes? Are the "
            "priors in the order top first?",
        )
    class_counts = {
        f"the prior of level '{level.name}'": prior.classes for level, prior in zip(levels, priors, strict=True)
    }
    if classifier is not None:
        class_counts = {"the classifier": classifier.classes} | class_counts
        require(
            classifier.channels == tokenizer.channels,
            f"the classifier must read images of {tokenizer.channels} channels, got {classifier.channels}",
        )
    for part, count in class_counts.items():
        require(count == len(classes), f"{part} must have {len(classes)} classes as the generator has, got {count}")


def _check_request(labels: Tensor, seeds: Tensor, batch: int, classes: int) -> None:
    require(len(labels) > 0, "a generator needs at least one label, got none")
    require(
        labels.shape == seeds.shape, f"there must be one seed per label, got {len(labels)} labels, {len(seeds)} seeds"
    )
    low, high = int(labels.min()), int(labels.max())
    require(low >= 0 and high < classes, f"labels must lie in 0 .. {classes - 1}, got {low} .. {high}")
    require(batch >= 1, f"batch must be at least 1, got {batch}")

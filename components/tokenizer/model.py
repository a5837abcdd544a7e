"""The hierarchical VQ-VAE (Razavi et al. 2019, Algorithm 1), any number of levels.

Shapes: n images, c channels, height width sides of an image, h w sides of a code map, d code width.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from components.config import require
from components.tokenizer.config import VQVAEArchitecture, VQVAEFitting
from components.tokenizer.decoder import ImageDecoder, doublings
from components.tokenizer.encoder import Encoder, LowerHead, TopHead
from components.tokenizer.quantizer import CodebookUse, Quantized, Quantizer, mixed_seed
from components.tokenizer.quantizers import QUANTIZERS

DEFAULT_FITTING = VQVAEFitting()
"""For a tokenizer that is only used."""


class TokenizerOutput(NamedTuple):
    """Results of one pass through the whole tokenizer; levels top first."""

    reconstruction: Tensor
    """(n, c, height, width), not clamped."""
    codes: tuple[Tensor, ...]
    """int64 (n, h, w) per level."""
    commitment: Tensor
    """Scalar: mean |sg[e] - E(x)|^2, summed over levels (equation 2 without its factor beta)."""
    statistics: tuple[CodebookUse, ...]
    """Use of each level's codebook."""


class Tokenizer(nn.Module):
    """Images float (n, c, height, width) in [-1, 1] <-> code maps int64 (n, h, w), one per level, top first.

    In training mode `forward` also updates the codebooks, and with torch.distributed initialised every worker must call
    it together with the others. Whether images are finite and codes in range is not checked inside a compiled graph.
    """

    def __init__(
        self,
        architecture: VQVAEArchitecture,
        *,
        channels: int,
        fitting: VQVAEFitting = DEFAULT_FITTING,
        seed: int = 0,
    ) -> None:
        """`channels` of the images: 1 or 3. `fitting` and `seed`, of the quantizers' draws, matter in training only."""
        super().__init__()
        require(channels >= 1, f"channels must be at least 1, got {channels}")
        self.architecture, self.channels, self.prefix_share = architecture, channels, fitting.prefix_share
        levels = architecture.levels
        # Bottom-up: each level's encoder reads the features of the level below it, the lowest encoder the image.
        below = [(lower.stride, architecture.hidden) for lower in levels[1:]] + [(1, channels)]
        self.encoders = nn.ModuleList(
            Encoder(inputs, architecture, halvings=doublings(level.stride, stride))
            for level, (stride, inputs) in zip(levels, below, strict=True)
        )
        self.top = TopHead(architecture, code_width=levels[0].code_width)
        self.lower = nn.ModuleList(
            LowerHead(
                architecture,
                code_width=level.code_width,
                above_width=above.code_width,
                doublings=doublings(above.stride, level.stride),
            )
            for above, level in pairwise(levels)
        )
        self.quantizers = nn.ModuleList(
            QUANTIZERS[architecture.quantizer].for_level(level, architecture, fitting, seed=mixed_seed(seed, index))
            for index, level in enumerate(levels)
        )
        self.decoder = ImageDecoder(architecture, channels=channels)

    def forward(self, images: Tensor) -> TokenizerOutput:
        """Reconstruct images; raises ValueError unless they are finite floats of a shape that the levels divide."""
        self._check_images(images)
        top, *lower = self._features(images)
        # Algorithm 1, lines 1-2: h_top <- E_top(x), e_top <- Quantize(h_top)
        quantized: list[Quantized] = [self.quantizers[0](self.top(top))]
        for head, quantizer, features in zip(self.lower, self.quantizers[1:], lower, strict=True):
            # Algorithm 1, lines 3-4: h_bottom <- E_bottom(x, e_top), e_bottom <- Quantize(h_bottom)
            quantized.append(quantizer(head(features, quantized[-1].vectors)))
        # Algorithm 1, line 5: x^ <- D(e_top, e_bottom)
        reconstruction = self.decoder(self._drop_lower_levels([level.vectors for level in quantized]))
        distances = torch.stack([level.distance for level in quantized])  # (levels)
        return TokenizerOutput(
            reconstruction,
            tuple(level.codes for level in quantized),
            distances.sum(),
            tuple(level.statistics for level in quantized),
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Code maps of images, top first; codebooks stay unchanged. Raises ValueError as forward does."""
        return tuple(codes for codes, _, _ in self._encoded(images))

    @torch.no_grad()
    def encode_with_error(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `encode`, and for each image the distance of its vectors from the encoder outputs, float32 (n).

        That is the mean of |e - E(x)|^2 over a level's numbers, summed over levels. It needs no decoding, and is large
        for images unlike those that the tokenizer was fitted to.
        """
        maps, error = [], torch.zeros(len(images), device=images.device)  # error (n)
        for codes, outputs, quantizer in self._encoded(images):
            maps.append(codes)
            error += quantizer.distances(outputs, codes)  # (n)
        return tuple(maps), error

    @torch.no_grad()
    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Code maps of all levels, top first -> images (n, c, height, width) clamped to [-1, 1].

        Raises ValueError unless the maps fit the levels and each other.
        """
        complete = len(maps) == len(self.architecture.levels)
        require(
            complete,
            f"decode needs one code map per level ({self._names()}), got {len(maps)}: give all, top first, or "
            "use decode_prefix",
        )
        return self.decode_prefix(maps)

    @torch.no_grad()
    def decode_prefix(self, maps_prefix: Sequence[Tensor]) -> Tensor:
        """Images from the upper levels alone, as in the paper's figure 3.

        Every position of a level that is missing takes the mean of that level's vectors, weighted by how often each is
        used (the averages N of equation 2). Raises ValueError unless the maps fit the levels and each other.
        """
        self._check_maps(maps_prefix)
        vectors = []  # (n, d, h, w) per level
        for index, quantizer in enumerate(self._codebooks()):
            if index < len(maps_prefix):
                vectors.append(quantizer.lookup(maps_prefix[index]))
            else:
                shape = self._shape_below(maps_prefix[0], index)
                vectors.append(_at_every_position(quantizer.mean()).expand(shape[0], -1, *shape[1:]))
        return self.decoder(vectors).clamp(-1, 1)  # (n, c, height, width)

    def map_shapes(self, image_size: int) -> tuple[tuple[int, int], ...]:
        """Height and width of each level's code map for images of `image_size` x `image_size`, top first."""
        self._check_sides(image_size, image_size)
        return tuple((image_size // level.stride, image_size // level.stride) for level in self.architecture.levels)

    def _encoded(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor, Quantizer]]:
        """Codes, encoder outputs and quantizer of each level, top first."""
        self._check_images(images)
        top, *lower = self._features(images)
        first, *others = self._codebooks()
        outputs = self.top(top)  # (n, d, h, w)
        codes = first.encode(outputs)  # (n, h, w)
        yield codes, outputs, first
        above = first.lookup(codes)  # (n, d, h, w)
        for head, quantizer, features in zip(self.lower, others, lower, strict=True):
            outputs = head(features, above)  # (n, d, h, w)
            codes = quantizer.encode(outputs)  # (n, h, w)
            yield codes, outputs, quantizer
            above = quantizer.lookup(codes)  # (n, d, h, w)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Bottom-up features (n, f, h, w) of every level, top first."""
        features = [images]
        for encoder in reversed(self.encoders):
            features.insert(0, encoder(features[0]))  # (n, f, h, w)
        return features[:-1]  # without the images

    def _drop_lower_levels(self, vectors: list[Tensor]) -> list[Tensor]:
        """In training, fill the levels below a random one, as decode_prefix does, in a fraction of the images."""
        levels = len(vectors)
        if not self.training or self.prefix_share == 0 or levels == 1:
            return vectors
        shape, device = (len(vectors[0]), 1, 1, 1), vectors[0].device  # one draw per image
        depth = torch.randint(1, levels, shape, device=device)  # (n, 1, 1, 1): levels that stay if it is chosen
        depth = torch.where(torch.rand(shape, device=device) < self.prefix_share, depth, levels)  # (n, 1, 1, 1)
        filling = [_at_every_position(quantizer.mean()) for quantizer in self._codebooks()]  # (1, d, 1, 1) per level
        return [torch.where(index < depth, vectors[index], filling[index]) for index in range(levels)]

    def _codebooks(self) -> list[Quantizer]:
        """The quantizers, top first, typed."""
        return cast(list[Quantizer], list(self.quantizers))

    def _shape_below(self, top: Tensor, index: int) -> tuple[int, int, int]:
        """Shape of level `index`'s code map beside the top level's map (n, h, w)."""
        finer = self.architecture.levels[0].stride // self.architecture.levels[index].stride
        return top.shape[0], top.shape[1] * finer, top.shape[2] * finer

    def _names(self) -> str:
        return ", ".join(level.name for level in self.architecture.levels)

    def _check_sides(self, height: int, width: int) -> None:
        top = self.architecture.levels[0]
        fits = min(height, width) >= top.stride and height % top.stride == 0 and width % top.stride == 0
        require(
            fits,
            f"image sides must be multiples of {top.stride}, the stride of level '{top.name}', got "
            f"{height}x{width}: resize the images or lower the strides",
        )

    def _check_images(self, images: Tensor) -> None:
        shape = tuple(images.shape)
        fits = images.ndim == 4 and images.is_floating_point() and shape[1] == self.channels
        require(
            fits,
            f"images must be float (n, {self.channels}, height, width), got {images.dtype} {shape}: pass "
            "stored pixels through to_images, and use a tokenizer made for their channels",
        )
        require(shape[0] >= 1, f"a batch must hold at least one image, got {shape}: drop empty batches")
        self._check_sides(shape[2], shape[3])
        if torch.compiler.is_compiling():
            return
        # The greatest magnitude is NaN or infinite where any value is.
        finite = bool(torch.isfinite(images.detach().abs().amax()))
        require(
            finite,
            f"images must be finite, got {int((~torch.isfinite(images)).sum())} NaN or infinite values of "
            f"{images.numel()}: correct the images or leave them out",
        )

    def _check_maps(self, maps: Sequence[Tensor]) -> None:
        levels = self.architecture.levels
        count = 1 <= len(maps) <= len(levels)
        require(count, f"there must be 1 to {len(levels)} code maps ({self._names()}), top first, got {len(maps)}")
        first = tuple(maps[0].shape)
        whole = len(first) == 3 and min(first) >= 1
        require(
            whole,
            f"code map '{levels[0].name}' must be (n, height, width), each at least 1, got {first}: drop empty batches",
        )
        for index, (level, codes) in enumerate(zip(levels, maps, strict=False)):
            name, wanted = f"code map '{level.name}'", self._shape_below(maps[0], index)
            require(
                tuple(codes.shape) == wanted,
                f"{name} must be {wanted} below a top map of {first}, got "
                f"{tuple(codes.shape)}: was the dataset encoded by another tokenizer? Re-run 'encode'",
            )
            require(codes.dtype == torch.int64, f"{name} must be int64, got {codes.dtype}: convert with .long()")
            if torch.compiler.is_compiling():
                continue
            low, high = int(codes.min()), int(codes.max())
            require(
                low >= 0 and high < level.codebook_size,
                f"{name} must hold codes from 0 to "
                f"{level.codebook_size - 1}, got {low} to {high}: was it encoded by another tokenizer? "
                "Re-run 'encode'",
            )


def _at_every_position(vector: Tensor) -> Tensor:
    """One vector (d) for all positions of all images: (1, d, 1, 1)."""
    return vector[None, :, None, None]

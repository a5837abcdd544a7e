"""The length of the codes under the priors."""

import math
from collections.abc import Sequence

from components.evaluation.measures.kinds import GeneratorMeasure, MeasureInputs


def bits_per_dimension(nats_per_code: Sequence[float], positions: Sequence[int], dimensions: int) -> float:
    """Bits that the codes of an image cost, per number of the image: sum of nats_l * positions_l / (ln 2 * dimensions).

    `nats_per_code` and `positions` (codes per image) are per level; `dimensions` is h * w * c of the image. It is the
    cost of the codes under the priors, not a likelihood of pixels.
    """
    nats = sum(cost * count for cost, count in zip(nats_per_code, positions, strict=True))  # per image
    return nats / (math.log(2) * dimensions)


def _bits_of(inputs: MeasureInputs) -> float:
    positions = [codes[0].numel() for codes in inputs.samples.maps]  # h * w of each level's map
    return bits_per_dimension(inputs.nats_per_code, positions, inputs.held_out.pixels[0].numel())


BITS_PER_DIMENSION = GeneratorMeasure(
    name="bits_per_dimension",
    title="Code length, bits/dim",
    meaning="Bits per number of a held-out image that its codes cost under the priors; not a likelihood of pixels.",
    value_format="{:.3f}",
    compute=_bits_of,
    reference=lambda scores: "Uncompressed: 8",
)

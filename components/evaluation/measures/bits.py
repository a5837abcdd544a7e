"""The length of the codes under the priors."""

import math
from collections.abc import Sequence


def bits_per_dimension(nats_per_code: Sequence[float], positions: Sequence[int], dimensions: int) -> float:
    """Bits that the codes of an image cost, per number of the image: sum of nats_l * positions_l / (ln 2 * dimensions).

    The unit is that of van den Oord et al. 2016 (Pixel Recurrent Neural Networks, section 5.1): the negative
    log-likelihood in base 2, divided by the numbers in an image, h * w * c. Theirs is of the pixels; this is of the
    codes alone and leaves out what the decoder loses: no likelihood of pixels, not comparable with one.
    `nats_per_code` and `positions` (codes per image) are per level.
    """
    nats = sum(cost * count for cost, count in zip(nats_per_code, positions, strict=True))  # per image
    return nats / (math.log(2) * dimensions)

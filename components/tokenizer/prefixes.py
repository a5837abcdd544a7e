"""Images decoded from the upper levels alone, level by level (the paper's figure 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from components.images.tensors import to_pixels
from components.pictures import Pixels
from components.tokenizer.model import Tokenizer


@torch.no_grad()
def decode_prefixes(tokenizer: Tokenizer, maps: Sequence[Tensor]) -> dict[str, Pixels]:
    """Pixels uint8 (n, height, width, c) decoded from the top level, then from the upper two, ..., then from all.

    `maps` are the code maps int64 (n, h, w) of all levels, top first. Keys name the levels: "top", "top + bottom".
    """
    names = [level.name for level in tokenizer.architecture.levels]
    return {
        " + ".join(names[:count]): to_pixels(tokenizer.decode_prefix(maps[:count])).cpu().numpy()
        for count in range(1, len(names) + 1)
    }

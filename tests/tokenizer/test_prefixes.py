"""Images decoded from the upper levels alone."""

import numpy as np
import torch

from components.images.tensors import to_images, to_pixels
from components.tokenizer.prefixes import decode_prefixes


def test_each_prefix_of_the_levels_is_decoded_and_named(generator):
    tokenizer = generator.tokenizer
    pixels = torch.randint(0, 256, (2, 16, 16, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maps = tokenizer.encode(to_images(pixels))
    prefixes = decode_prefixes(tokenizer, maps)
    assert list(prefixes) == ["top", "top + bottom"]
    np.testing.assert_array_equal(prefixes["top"], to_pixels(tokenizer.decode_prefix(maps[:1])))
    np.testing.assert_array_equal(prefixes["top + bottom"], to_pixels(tokenizer.decode(maps)))

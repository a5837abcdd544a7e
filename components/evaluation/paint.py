"""The report's pictures, painted in a task: the driver gets PNGs.

Shapes: n images, h w sides, c channels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from components.evaluation.instruments import InstrumentSettings, load_instruments
from components.evaluation.parts import read_tensors
from components.images.pixels import PixelReader
from components.images.tensors import to_images, to_pixels
from components.pictures import Pixels, image_grid, prefix_grid, reconstruction_grid, sample_grid
from components.tokenizer.prefixes import decode_prefixes


def paint_samples(settings: InstrumentSettings, folder: str, rows: Mapping[str, Sequence[int]]) -> bytes:
    """Samples of the set in `folder` at the positions of each row; rows are named."""
    return sample_grid({name: _decode(settings, folder, positions) for name, positions in rows.items()})


def paint_reconstructions(settings: InstrumentSettings, reader: PixelReader, table: pa.Table) -> dict[str, bytes]:
    """`reconstruction`: images of the snapshot's rows `table` above their reconstructions; `levels`: the same images
    decoded from the top level alone, then with each lower level added (figure 3).
    """
    instruments = load_instruments(settings)
    tokenizer, pixels = instruments.generator.tokenizer, reader.read(table)  # uint8 (n, h, w, c)
    with torch.no_grad():
        maps = tokenizer.encode(to_images(torch.from_numpy(pixels).to(instruments.device)))
    prefixes = decode_prefixes(tokenizer, maps)
    *_, from_all_levels = prefixes.values()
    columns = len(pixels)
    return {
        "reconstruction": reconstruction_grid(pixels, from_all_levels, columns),
        "levels": prefix_grid(pixels, prefixes),
    }


def paint_neighbours(
    settings: InstrumentSettings, folder: str, positions: Sequence[int], reader: PixelReader, nearest: pa.Table
) -> bytes:
    """Samples at `positions` of the set in `folder`, above the training images of the snapshot's rows `nearest`.

    `nearest` has one row per sample, in their order.
    """
    return image_grid(
        [_decode(settings, folder, positions), reader.read(nearest)], ["sample", "nearest training image"]
    )


@torch.no_grad()
def _decode(settings: InstrumentSettings, folder: str, positions: Sequence[int]) -> Pixels:
    """Pixels uint8 (n, h, w, c) of samples, from their codes."""
    instruments = load_instruments(settings)
    tokenizer = instruments.generator.tokenizer
    names = [f"codes/{level}" for level in range(len(tokenizer.architecture.levels))]
    stored = read_tensors(folder, np.asarray(positions), names)
    maps = [stored[name].long().to(instruments.device) for name in names]  # (n, h, w) each
    return to_pixels(tokenizer.decode(maps)).cpu().numpy()

"""How many codes of a dataset are those of the tokenizer that is registered and served, which computes in float32.

Shapes: n images that are compared, h w sides of a code map.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from components.codes.schema import CodeSchema
from components.codes.writer import Shard
from components.images.pixels import PixelReader
from components.images.snapshot import StoredSnapshot
from components.images.split import HELD_OUT
from components.images.tensors import to_images
from components.store import commits, parquet
from components.tokenizer.stored import load_tokenizer

SHARDS_COMPARED, ROWS_PER_SHARD = 8, 8
"""Shards from which images are taken, spread over the dataset, and images of each."""
PIXELS_COMPARED = 1 << 22
"""Pixels that are encoded again at most, so that large images take no longer than 64 of 256 x 256."""
ROWS_PER_READ = 1 << 16
"""Rows of the snapshot in memory at a time."""


def float32_agreement(
    folder: str, schema: CodeSchema, shards: Sequence[Shard], snapshot: StoredSnapshot, tokenizer: Path
) -> dict[str, float]:
    """Fraction of codes, by level, that the tokenizer stored in `tokenizer` gives again in float32 on this machine.

    A few images of a few of the `shards` in `folder` are encoded again. Empty where none of them can be compared.
    """
    encoded = list(_chosen_rows(folder, shards))
    if not encoded:
        return {}
    table = pa.concat_tables(encoded)  # n rows of shards
    table = table.slice(0, max(1, PIXELS_COMPARED // snapshot.pixels.image_size**2))
    table, pixels = _with_pixels(table, snapshot)
    if not table.num_rows:
        return {}
    model = load_tokenizer(tokenizer)
    with torch.no_grad():
        batches = [model.encode(to_images(torch.from_numpy(image[None]))) for image in pixels]  # (1, h, w) per level
    levels = zip(*batches, strict=True)
    return {
        level.name: float(np.mean(torch.cat(codes).flatten(1).numpy() == _stored_codes(table, level.name)))
        for level, codes in zip(schema.levels, levels, strict=True)
    }


def _chosen_rows(folder: str, shards: Sequence[Shard]) -> Iterator[pa.Table]:
    """Held-out rows of each chosen shard, by id, which is a hash; any rows of a shard that has none."""
    count = min(SHARDS_COMPARED, len(shards))
    for number in np.linspace(0, len(shards) - 1, count).astype(int):
        table = parquet.from_bytes(commits.read_verified(folder, vars(shards[number])))
        held_out = table.filter(pc.equal(table["split"], HELD_OUT))
        rows = held_out if held_out.num_rows else table
        yield rows.take(pc.sort_indices(rows["id"])[:ROWS_PER_SHARD])


def _with_pixels(table: pa.Table, snapshot: StoredSnapshot) -> tuple[pa.Table, np.ndarray]:
    """The rows of `table` whose images can still be read, and their pixels uint8 (n, height, width, c)."""
    waves = (rows.filter(pc.is_in(rows["id"], table["id"])) for rows in snapshot.waves(ROWS_PER_READ))
    listed = pa.concat_tables(waves)
    pixels, refused = PixelReader(snapshot.pixels, snapshot.seed).read_usable(listed)
    usable = np.setdiff1d(np.arange(listed.num_rows), list(refused)).astype(np.int64)
    listed, pixels = listed.take(pa.array(usable)), pixels[usable]
    return table.take(pc.index_in(listed["id"], table["id"])), pixels


def _stored_codes(table: pa.Table, level: str) -> np.ndarray:
    """int64 (n, h * w)."""
    codes = table[level].combine_chunks().flatten()
    return np.asarray(codes).astype(np.int64).reshape(table.num_rows, -1)

"""The tasks that look at images: each draws or reads one part of a set, describes it, and writes what it found.

Shapes: n images of a part, h w sides, c channels.
"""

import functools
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from components.evaluation.instruments import InstrumentSettings, load_instruments
from components.evaluation.measures.memorisation import NearestImages, thumbnails
from components.evaluation.parts import Part, Rows, read_rows, read_tensors, write_part
from components.generator.samples import DrawRequest
from components.images.pixels import PixelReader
from components.images.snapshot import label_numbers
from components.priors.config import SamplingConfig


def draw_part(
    settings: InstrumentSettings, sampling: SamplingConfig, request: DrawRequest, folder: str, number: int
) -> Rows:
    """Draw the images of `request` and describe them.

    Rows: `labels`, `seeds`, `probability` (of the requested class, by the rejecting classifier), `judged`. Tensors also
    hold `codes/<level number>` int32 (n, h, w).
    """
    instruments = load_instruments(settings)
    samples = instruments.generator.sample(request.labels, request.seeds, sampling=sampling, batch=len(request))
    rows, tensors = instruments.describe(samples.pixels)
    rows |= {"labels": samples.labels, "seeds": samples.seeds, "probability": samples.probability}
    tensors |= {f"codes/{level}": codes.int() for level, codes in enumerate(samples.maps)}
    return write_part(folder, number, Part(rows, tensors))


class RealPart(NamedTuple):
    """Rows of real images, and of their reconstructions where those were asked for."""

    images: Rows
    reconstructions: Rows | None


def describe_part(
    settings: InstrumentSettings, reader: PixelReader, table: pa.Table, folder: str, number: int, reconstruct: bool
) -> RealPart:
    """Read the snapshot's rows `table` and describe the images, with `reconstruct` their reconstructions too.

    Rows: `labels`, `judged`; those of reconstructions also the distances from their images.
    """
    instruments = load_instruments(settings)
    pixels = torch.from_numpy(reader.read(table))  # uint8 (n, h, w, c)
    labels = torch.from_numpy(label_numbers(table))  # (n,)
    reconstructions = None
    if reconstruct:  # first, so that a part of images which is there has its reconstructions
        reconstructed = instruments.reconstruct(pixels)
        rows, tensors = instruments.describe(reconstructed)
        rows |= {"labels": labels, **instruments.distances(reconstructed, pixels)}
        reconstructions = write_part(reconstructions_of(folder), number, Part(rows, tensors))
    rows, tensors = instruments.describe(pixels)
    return RealPart(write_part(folder, number, Part(rows | {"labels": labels}, tensors)), reconstructions)


def reconstructions_of(folder: str) -> str:
    """Folder of the set of reconstructions of the set in `folder`."""
    return f"{folder.rstrip('/')}-reconstructed"


def read_real_part(folder: str, number: int, reconstruct: bool) -> RealPart:
    """What `describe_part` returned in an earlier run."""
    return RealPart(read_rows(folder, number), read_rows(reconstructions_of(folder), number) if reconstruct else None)


class QuerySet(NamedTuple):
    """Images whose nearest training image is sought."""

    folder: str
    positions: tuple[int, ...]
    """Their rows in the set of that folder."""


def search_part(
    queries: tuple[QuerySet, ...], reader: PixelReader, table: pa.Table, first_row: int, folder: str, number: int
) -> Rows:
    """The nearest of the training images `table` to each query, of all sets: rows `distance` and `row`, both (n,).

    `first_row` is the number of the table's first row among all training images.
    """
    nearest = NearestImages(torch.cat([_query_thumbnails(each) for each in queries]))  # of (n, f)
    nearest.update(thumbnails(torch.from_numpy(reader.read(table))), first_row)
    return write_part(folder, number, Part({"distance": nearest.distances, "row": nearest.rows}, {}))


@functools.lru_cache(maxsize=2)
def _query_thumbnails(queries: QuerySet) -> torch.Tensor:
    return read_tensors(queries.folder, np.asarray(queries.positions), ["thumbnails"])["thumbnails"]  # (n, f)

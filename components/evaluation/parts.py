"""What workers found out about images, in files, so that neither images nor features pass through the driver.

<work>/<set>/00012.rows.safetensors   a few numbers per image: classes, seeds, scores. The driver reads these
<work>/<set>/00012.safetensors        features, code maps, thumbnails. Workers read these

A set is a list of images: samples, training images, held-out images. Part k holds its rows k * ROWS_PER_PART and on.
The rows are written last: a part that has them is complete, and an evaluation that was killed keeps it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from components.store import objects

ROWS_PER_PART = 250
"""Images per part: few enough to spread a set over workers, enough to make a task's start-up time negligible."""

Rows = Mapping[str, Tensor]
"""Tensors of one length by name."""


class Part(NamedTuple):
    """What a task writes about one part of a set."""

    rows: Rows
    """Small: a few numbers per image."""
    tensors: Rows
    """Everything else."""


def part_ranges(count: int) -> list[range]:
    """The rows of each part of a set of `count` images."""
    return [range(start, min(start + ROWS_PER_PART, count)) for start in range(0, count, ROWS_PER_PART)]


def write_part(folder: str, number: int, part: Part) -> Rows:
    """Store a part of the set in `folder`; returns its rows."""
    objects.write_bytes(_tensors_uri(folder, number), save(_contiguous(part.tensors)))
    objects.write_bytes(_rows_uri(folder, number), save(_contiguous(part.rows)))
    return part.rows


def read_rows(folder: str, number: int) -> Rows:
    """The rows of one part."""
    return load(objects.read_bytes(_rows_uri(folder, number)))


def finished_parts(folder: str) -> set[int]:
    """Numbers of the complete parts in `folder`."""
    suffix = ".rows.safetensors"
    return {int(name.removesuffix(suffix)) for name in objects.object_sizes(folder) if name.endswith(suffix)}


def join_rows(parts: Mapping[int, Rows]) -> dict[str, Tensor]:
    """The rows of all parts, in the order of their numbers."""
    ordered = [parts[number] for number in sorted(parts)]
    return {name: torch.cat([rows[name] for rows in ordered]) for name in ordered[0]}


def read_tensors(folder: str, positions: np.ndarray, names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors `names` at rows `positions` int64 (n,) of the set in `folder`, in that order.

    A name that the set lacks is left out. Only parts that hold one of the positions are read.
    """
    order = np.argsort(positions, kind="stable")  # (n,): rows by part
    found: dict[str, list[Tensor]] = {}
    for number, local in _positions_by_part(positions[order]):
        stored = load(objects.read_bytes(_tensors_uri(folder, number)))
        for name in names:
            if name in stored:
                found.setdefault(name, []).append(stored[name][torch.from_numpy(local)])
    back = torch.from_numpy(
        np.argsort(order, kind="stable")
    )  # (n,): from the order of the parts to that of `positions`
    return {name: torch.cat(pieces)[back] for name, pieces in found.items()}


def _positions_by_part(positions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Number of each part that holds some of the rising `positions`, and their rows within it."""
    numbers = positions // ROWS_PER_PART  # (n,)
    for number in np.unique(numbers):
        yield int(number), positions[numbers == number] - number * ROWS_PER_PART


def _contiguous(tensors: Rows) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _rows_uri(folder: str, number: int) -> str:
    return objects.join(folder, f"{number:05}.rows.safetensors")


def _tensors_uri(folder: str, number: int) -> str:
    return objects.join(folder, f"{number:05}.safetensors")

"""What cannot be used: one row an image, with the reason, so that nothing is lost in silence."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from components.errors import TooManyRejects
from components.images.config import ImagesConfig
from components.images.pixels import PixelReader

REJECTS_FILE = "rejects.parquet"
ROWS_PER_INSPECTION = 32
"""Decoded images that an inspection holds."""

REJECTS_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("key", "uri", "reason", "error")])


class Reject(NamedTuple):
    """One image that is left out."""

    key: str
    uri: str
    reason: str
    error: str


def inspect_rows(rows: pa.Table, config: ImagesConfig) -> list[Reject]:
    """The rows of a listing that cannot be used, found by decoding each.

    Only what would fail at every reading becomes a reject, or what the store confirms to be missing; a store that
    cannot be read raises StorageError.
    """
    rows = rows.append_column("copy", pa.array([0] * rows.num_rows, pa.int16()))
    rejects = []
    for first in range(0, rows.num_rows, ROWS_PER_INSPECTION):
        some = rows.slice(first, ROWS_PER_INSPECTION)
        _, refused = PixelReader(config, seed=0).read_usable(some)
        for place, why in refused.items():
            rejects.append(Reject(some["key"][place].as_py(), some["uri"][place].as_py(), *why))
    return rejects


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Rows of SCHEMA by rising key."""
    columns = zip(*sorted(rejects), strict=True) if rejects else [[]] * len(REJECTS_SCHEMA)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=REJECTS_SCHEMA)


def check_reject_fraction(rejects: Sequence[Reject], total: int, max_rejects: float) -> None:
    """Raise TooManyRejects with the most frequent reasons when rejects are more than a share `max_rejects`."""
    if len(rejects) <= max_rejects * total:
        return
    counted = Counter(reject.reason for reject in rejects).most_common(8)
    example = {reject.reason: reject for reject in reversed(sorted(rejects))}
    lines = [f"  {count:>8}  {reason:<14} {example[reason].key}: {example[reason].error}" for reason, count in counted]
    raise TooManyRejects(
        f"at most {max_rejects:.2%} of the images may be unusable, got {len(rejects)} of {total}:\n"
        + "\n".join([f"  {'images':>8}  {'reason':<14} for example", *lines])
        + "\nRepair or remove these files, or raise images.max_rejects"
    )

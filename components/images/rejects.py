"""Images that cannot be used: found by decoding every image, stored as a table with reasons."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from components.errors import TooManyRejects
from components.images.config import PixelConfig
from components.images.pixels import PixelReader

REJECTS_FILE = "rejects.parquet"
ROWS_PER_INSPECTION = 32
"""Images decoded at a time (bounds memory)."""
MAX_REASONS_SHOWN = 8

REJECTS_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("key", "uri", "reason", "error")])


class Reject(NamedTuple):
    """One image that is left out of the snapshot."""

    key: str
    uri: str
    reason: str
    error: str


def inspect_rows(rows: pa.Table, config: PixelConfig) -> list[Reject]:
    """The rows of a listing that cannot be used, found by decoding each.

    An image is rejected only if every reading would fail, or if the store confirms that it is missing; raises
    StorageError when the store cannot be read.
    """
    rows = rows.append_column("copy", pa.array([0] * rows.num_rows, pa.int16()))
    rejects = []
    for first in range(0, rows.num_rows, ROWS_PER_INSPECTION):
        inspected = rows.slice(first, ROWS_PER_INSPECTION)
        _, refused = PixelReader(config, seed=0).read_usable(inspected)
        for row_number, refusal in refused.items():
            rejects.append(Reject(inspected["key"][row_number].as_py(), inspected["uri"][row_number].as_py(), *refusal))
    return rejects


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Rows of REJECTS_SCHEMA by rising key."""
    columns = zip(*sorted(rejects), strict=True) if rejects else [[]] * len(REJECTS_SCHEMA)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=REJECTS_SCHEMA)


def check_reject_fraction(rejects: Sequence[Reject], total: int, max_rejects: float) -> None:
    """Raise TooManyRejects, with the most frequent reasons, when rejects exceed the fraction `max_rejects`."""
    if len(rejects) <= max_rejects * total:
        return
    counted = Counter(reject.reason for reject in rejects).most_common(MAX_REASONS_SHOWN)
    # Reversed, so that each reason's first key is the last one written.
    first_of = {reject.reason: reject for reject in reversed(sorted(rejects))}
    lines = [
        f"  {count:>8}  {reason:<14} {first_of[reason].key}: {first_of[reason].error}" for reason, count in counted
    ]
    raise TooManyRejects(
        f"at most {max_rejects:.2%} of the images may be unusable, got {len(rejects)} of {total}:\n"
        + "\n".join([f"  {'images':>8}  {'reason':<14} for example", *lines])
        + "\nRepair or remove these files, or raise images.max_rejects"
    )

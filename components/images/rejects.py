"""Images that cannot be used: found by decoding every image, stored as a table with reasons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from components.errors import TooManyRejects
from components.images.config import PixelConfig
from components.images.decode import UnusableImage, decode_image
from components.images.fetch import fetch_image
from components.images.listing import content_of
from components.images.pixels import REMOTE_READS

REJECTS_FILE = "rejects.parquet"
MAX_REASONS_SHOWN = 8

REJECTS_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("key", "uri", "reason", "error")])


class Reject(NamedTuple):
    """One image that is left out of the snapshot."""

    key: str
    uri: str
    reason: str
    error: str


class Inspection(NamedTuple):
    """What was found by reading some rows of a listing."""

    contents: list[bytes | None]
    """`content_of` each row's image; None for a reject."""
    rejects: list[Reject]


def inspect_rows(rows: pa.Table, config: PixelConfig) -> Inspection:
    """Read and decode each row of a listing.

    An image is rejected only if every reading would fail, or if the store confirms that it is missing; raises
    StorageError when the store cannot be read.
    """
    listed = rows.to_pylist()
    # Local images are decoded in this thread: decoding would compete for the same CPU.
    threads = REMOTE_READS if any("://" in row["uri"] for row in listed) else 1
    with ThreadPoolExecutor(threads) as pool:
        look = partial(_inspect, config=config)
        found = list(pool.map(look, listed) if threads > 1 else map(look, listed))
    contents = [each if isinstance(each, bytes) else None for each in found]
    return Inspection(contents, [each for each in found if isinstance(each, Reject)])


def _inspect(row: Mapping[str, Any], config: PixelConfig) -> bytes | Reject:
    """The hash of one image's content, or why it cannot be used."""
    try:
        data = fetch_image(row)
        decode_image(data, config)
    except UnusableImage as error:
        return Reject(row["key"], row["uri"], error.reason, error.detail)
    except FileNotFoundError:
        return Reject(row["key"], row["uri"], "missing", "the store lists it and does not have it")
    return content_of(data)


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

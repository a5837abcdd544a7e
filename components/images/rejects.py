"""Images that cannot be used: found by decoding every image, stored as a table with reasons."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from components.errors import StorageError, TooManyRejects
from components.images.config import PixelConfig
from components.images.decode import UnusableImage, decode_image
from components.images.fetch import map_images
from components.images.listing import content_of

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
    contents: dict[str, bytes] = {}
    rejects: list[Reject] = []
    for row, found in map_images(rows.to_pylist(), lambda encoded: _content_of_usable(encoded, config)):
        if isinstance(found, UnusableImage):
            rejects.append(Reject(row["key"], row["uri"], found.reason, found.detail))
        elif isinstance(found, FileNotFoundError):
            rejects.append(Reject(row["key"], row["uri"], "missing", "the store lists it and does not have it"))
        elif isinstance(found, StorageError):
            raise found
        else:
            contents[row["key"]] = found
    return Inspection([contents.get(key) for key in rows["key"].to_pylist()], sorted(rejects))


def _content_of_usable(encoded: bytes, config: PixelConfig) -> bytes:
    """The hash of an image's content; raises UnusableImage."""
    decode_image(encoded, config)
    return content_of(encoded)


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

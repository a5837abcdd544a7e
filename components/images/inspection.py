"""Which images of a listing can be used, and the hash of each one's content: learnt by reading it once.

An image that an earlier snapshot of the same source holds with equal URI, size and etag is not read again.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.images.config import PixelConfig
from components.images.listing import LISTING_SCHEMA, ROWS_PER_TABLE, Listing
from components.images.rejects import Inspection, Reject, inspect_rows
from components.images.snapshot import CONTENT, LOCATION_COLUMNS, StoredSnapshot
from components.images.snapshot_writer import describe_pixels
from components.store.spool import ScratchFolder, SortedLookup, Spool

IMAGES_PER_TASK = 256
EARLIER_SCHEMA = pa.schema([LISTING_SCHEMA.field(name) for name in ("key", "content", *LOCATION_COLUMNS)])


class Inspector(Protocol):
    """Inspects slices of a listing, at once or side by side."""

    def submit(self, rows: pa.Table) -> Callable[[], Inspection]:
        """Begin with some rows; the returned function gives their inspection."""


class InspectorHere:
    """Inspects in this process, when the result is asked for."""

    def __init__(self, config: PixelConfig) -> None:
        self._config = config

    def submit(self, rows: pa.Table) -> Callable[[], Inspection]:
        return lambda: inspect_rows(rows, self._config)


class InspectedListing(NamedTuple):
    """What an inspection found."""

    usable: Listing
    """The rows that can be used, with the hashes of their contents."""
    rejects: list[Reject]
    read: int
    """Images that were read; those of the earlier snapshot were not."""


def inspect_listing(
    listing: Listing,
    inspector: Inspector,
    earlier: StoredSnapshot | None,
    report: Callable[[int, int, int], None] = lambda done, read, rejects: None,
) -> InspectedListing:
    """Read what is not known; `report(done, read, rejects)` is told how many rows are done."""
    folder = ScratchFolder()
    spool = Spool(folder.path / "rows.arrow", LISTING_SCHEMA, ROWS_PER_TABLE)
    rejects: list[Reject] = []
    done = read = 0

    def finish_oldest() -> None:
        nonlocal done, read
        table = under_way.popleft()
        table.finish(spool, rejects)
        done, read = done + table.rows, read + table.read
        report(done, read, len(rejects))

    lookup = SortedLookup(_earlier_images(earlier), EARLIER_SCHEMA, "key") if earlier else None
    # Two tables are under way: one is waited for while the next one is inspected.
    under_way: deque[_TableUnderInspection] = deque()
    for rows in listing.tables():
        known = _take_over(rows, lookup) if lookup else rows
        under_way.append(_TableUnderInspection(known, inspector))
        if len(under_way) > 1:
            finish_oldest()
    while under_way:
        finish_oldest()
    spool.close()
    return InspectedListing(listing.with_rows(spool, folder), sorted(rejects), read)


def can_take_over(earlier: StoredSnapshot, config: PixelConfig) -> bool:
    """Whether an image that was usable in `earlier` is usable with `config`; copies are made of usable images."""
    plain = describe_pixels(config, 0) | {"augment": None}
    return describe_pixels(earlier.pixels, 0) | {"augment": None} == plain


def _earlier_images(snapshot: StoredSnapshot) -> Iterator[pa.Table]:
    for part in snapshot.parts:
        rows = snapshot.read_part(part)
        known = rows.filter(pc.and_(pc.equal(rows["copy"], 0), pc.is_valid(rows["content"])))
        if known.num_rows:
            yield known.select(EARLIER_SCHEMA.names)


def _take_over(rows: pa.Table, lookup: SortedLookup) -> pa.Table:
    """The rows with the contents of those that an earlier snapshot holds unchanged."""
    earlier = lookup.find(rows["key"])
    same = pc.is_valid(earlier["content"])
    for name in LOCATION_COLUMNS:
        both_null = pc.and_(pc.is_null(rows[name]), pc.is_null(earlier[name]))
        same = pc.and_(same, pc.or_(both_null, pc.fill_null(pc.equal(rows[name], earlier[name]), False)))
    content = pc.coalesce(rows["content"], pc.if_else(same, earlier["content"], pa.scalar(None, CONTENT)))
    return rows.set_column(rows.schema.get_field_index("content"), LISTING_SCHEMA.field("content"), content)


class _TableUnderInspection:
    """Rows of which those without a content are being inspected."""

    def __init__(self, rows: pa.Table, inspector: Inspector) -> None:
        self._rows, self.rows = rows, rows.num_rows
        self._unread = np.flatnonzero(np.asarray(pc.is_null(rows["content"])))  # row numbers
        self.read = len(self._unread)
        slices = [self._unread[start : start + IMAGES_PER_TASK] for start in range(0, self.read, IMAGES_PER_TASK)]
        self._results = [inspector.submit(rows.take(pa.array(numbers))) for numbers in slices]

    def finish(self, spool: Spool, rejects: list[Reject]) -> None:
        """Wait for the inspections; keep the usable rows."""
        inspections = [result() for result in self._results]
        rejects += (reject for inspection in inspections for reject in inspection.rejects)
        contents = [content for inspection in inspections for content in inspection.contents]
        found = np.full(self._rows.num_rows, -1)  # (n,): place of a row's content among those that were read
        found[self._unread] = np.arange(self.read)
        read = pa.array(contents, CONTENT).take(pa.array(found, mask=found < 0))
        content = pc.coalesce(self._rows["content"], read)
        rows = self._rows.set_column(
            LISTING_SCHEMA.get_field_index("content"), LISTING_SCHEMA.field("content"), content
        )
        spool.add(rows.filter(pc.is_valid(rows["content"])))  # a reject has none

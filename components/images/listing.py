"""All images of a source, as rows, before any image is opened: sorted, labelled, and on this machine's disk.

builder = ListingBuilder()
builder.add(rows)  # any number of times, in any order
listing = builder.finish(number_labels)
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from components.config import require
from components.images.snapshot import CONTENT, SNAPSHOT_SCHEMA
from components.images.sources.labels import MAX_CLASSES
from components.store import commits
from components.store.spool import ROWS_PER_RUN, ExternalSort, ScratchFolder, SortedLookup, Spool

LISTING_SCHEMA = pa.schema(
    [SNAPSHOT_SCHEMA.field(name) for name in ("key", "label", "uri", "member", "size", "etag", "content")]
)
LABEL = LISTING_SCHEMA.get_field_index("label")
UNNUMBERED_SCHEMA = LISTING_SCHEMA.set(LABEL, pa.field("label", pa.string()))
"""Rows as a source gives them: labels are names, or class numbers as text."""
ROWS_PER_TABLE = 1 << 16
"""Rows that are read at a time."""


class Numbering(NamedTuple):
    """What the labels of a source mean."""

    number_of: Mapping[str, int | None]
    """The class number of each label as the source gives it; None: it is no label."""
    classes: tuple[str, ...]
    """Name of each number."""


class Listing:
    """All images of a source; its file is removed with this object."""

    def __init__(
        self,
        spool: Spool,
        folder: ScratchFolder,
        numbering: Numbering,
        rows_digest: str,
        files: tuple[commits.FileEntry, ...] = (),
        ignored: int = 0,
    ) -> None:
        self.rows, self.classes = spool.rows, numbering.classes
        self.files = files
        """Files that the source wrote into the snapshot's folder."""
        self.ignored = ignored
        """Files passed over: hidden, or without an image's extension."""
        self._spool, self._folder, self._rows_digest = spool, folder, rows_digest
        labels = list(numbering.number_of)
        self._labels = pa.array(labels, pa.string())
        self._numbers = pa.array([numbering.number_of[label] for label in labels], pa.int32())

    def tables(self) -> Iterator[pa.Table]:
        """Rows of LISTING_SCHEMA by rising key, ROWS_PER_TABLE at a time; keys are unique, URIs are absolute."""
        return map(self._numbered, self._spool.tables())

    @property
    def table(self) -> pa.Table:
        """All rows in memory, for small listings."""
        return pa.concat_tables([LISTING_SCHEMA.empty_table(), *self.tables()])

    def with_rows(self, spool: Spool, folder: ScratchFolder) -> "Listing":
        """A listing of other rows of LISTING_SCHEMA, with the same classes and files."""
        numbering = Numbering({}, self.classes)
        return Listing(spool, folder, numbering, self._rows_digest, self.files, self.ignored)

    def rows_at(self, numbers: Sequence[int]) -> pa.Table:
        """The rows with these rising numbers."""
        wanted = pa.array(numbers, pa.int64())
        taken, first = [LISTING_SCHEMA.empty_table()], 0
        for table in self.tables():
            inside = wanted.filter(pc.and_(pc.greater_equal(wanted, first), pc.less(wanted, first + table.num_rows)))
            taken.append(table.take(pc.subtract(inside, first)))
            first += table.num_rows
        return pa.concat_tables(taken)

    def digest(self) -> str:
        """Changes when an image is added, removed, renamed, relabelled or rewritten: then a new snapshot is needed."""
        return hashlib.sha256(json.dumps([list(self.classes), self._rows_digest]).encode()).hexdigest()

    def _numbered(self, rows: pa.Table) -> pa.Table:
        if rows.schema.field(LABEL).type == LISTING_SCHEMA.field(LABEL).type:
            return rows
        numbers = self._numbers.take(pc.index_in(rows["label"], value_set=self._labels).combine_chunks())
        return rows.set_column(LABEL, LISTING_SCHEMA.field("label"), numbers)


class ListingBuilder:
    """Takes rows in any order; memory holds those of one sorted run, and the distinct labels."""

    def __init__(self, rows_per_run: int = ROWS_PER_RUN) -> None:
        self._sort = ExternalSort("key", rows_per_run)
        self.rows = 0

    def add(self, rows: pa.Table) -> None:
        """Rows of UNNUMBERED_SCHEMA."""
        self._sort.add(rows.cast(UNNUMBERED_SCHEMA))
        self.rows += rows.num_rows

    def finish(
        self,
        number_labels: Callable[[Collection[str]], Numbering],
        *,
        labels: SortedLookup | None = None,
        files: tuple[commits.FileEntry, ...] = (),
        ignored: int = 0,
    ) -> Listing:
        """The listing. `number_labels` is given the distinct labels; `labels`, if there is one, has them by key.

        Raises ValueError for a key that occurs twice.
        """
        folder = ScratchFolder()
        spool = Spool(folder.path / "rows.arrow", UNNUMBERED_SCHEMA, ROWS_PER_TABLE)
        distinct: set[str] = set()
        hashed, last_key = hashlib.sha256(), None
        for rows in self._sort.tables():
            last_key = _check_unique(rows["key"], last_key)
            if labels is not None:
                rows = rows.set_column(LABEL, UNNUMBERED_SCHEMA.field(LABEL), labels.find(rows["key"])["label"])
            distinct.update(pc.unique(rows["label"].drop_null()).to_pylist())
            require(
                len(distinct) <= MAX_CLASSES,
                f"images must have at most {MAX_CLASSES} classes, got more labels, for example "
                f"{min(distinct, default=None)!r}: is the label in another column?",
            )
            _hash_rows(hashed, rows)
            spool.add(rows)
        spool.close()
        return Listing(spool, folder, number_labels(distinct), hashed.hexdigest(), files, ignored)


def listing_of(table: pa.Table, classes: tuple[str, ...], files: tuple[commits.FileEntry, ...] = ()) -> Listing:
    """The listing of rows of LISTING_SCHEMA that are in memory."""
    builder = ListingBuilder()
    builder.add(table.set_column(LABEL, UNNUMBERED_SCHEMA.field(LABEL), table["label"].cast(pa.string())))
    return builder.finish(
        lambda labels: Numbering({label: int(label) for label in labels}, classes),
        files=files,
    )


def content_of(data: bytes) -> bytes:
    """The hash of an image's encoded bytes that snapshots keep."""
    return hashlib.sha256(data).digest()[: CONTENT.byte_width]


def _check_unique(keys: pa.ChunkedArray, before: str | None) -> str:
    """The last key; raises ValueError where a key equals the one before it."""
    keys = keys.combine_chunks()
    repeated = keys.slice(1).filter(pc.equal(keys.slice(1), keys.slice(0, len(keys) - 1))).to_pylist()
    repeated += [before] if keys[0].as_py() == before else []
    require(not repeated, f"each image must be listed once, got {repeated[:1]} twice: remove one of them")
    return keys[-1].as_py()


def _hash_rows(hashed: "hashlib._Hash", rows: pa.Table) -> None:
    """Add rows to a hash, whatever tables they come in. No key holds the separator, which no store allows."""
    columns = [rows[name].cast(pa.string()) for name in ("key", "label", "size", "etag")]
    lines = pc.binary_join_element_wise(*columns, "", "\0", null_handling="replace", null_replacement="")
    hashed.update("".join(lines.to_pylist()).encode())

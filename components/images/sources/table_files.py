"""Tables in CSV or Parquet files, read a part at a time: labels and inventories may have a row per image."""

import contextlib
import io
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from components.store import objects

PARQUET_MAGIC = b"PAR1"
"""First bytes of every Parquet file."""
GZIP_MAGIC = b"\x1f\x8b"
BYTES_OF_FIRST_LINE = 1 << 12
"""Bytes in which the first line of a CSV file is looked for."""
BYTES_PER_BLOCK = 1 << 22
"""Bytes of a CSV file that are parsed at a time."""
ROWS_PER_BATCH = 1 << 16


class TableFile:
    """One CSV (also compressed by gzip) or Parquet file."""

    def __init__(self, uri: str, setting: str, header: Sequence[str] | None = None) -> None:
        """`setting` names the file in errors; `header` has the columns of a CSV file without a first line of names.

        Raises ValueError when it is neither kind of file.
        """
        self.uri, self._setting, self._header = uri, setting, header
        try:
            start = objects.read_range(uri, 0, BYTES_OF_FIRST_LINE)
        except FileNotFoundError:
            raise ValueError(f"{setting} must name a CSV or Parquet file, found nothing at {uri}") from None
        self.is_parquet = start.startswith(PARQUET_MAGIC)
        self._compressed = start.startswith(GZIP_MAGIC)
        self._separator = "," if self.is_parquet or self._compressed else _separator(start)
        with self._open([], text=()) as (names, _):
            self.columns: list[str] = names

    def tables(self, columns: Sequence[str], text: Collection[str] = ()) -> Iterator[pa.Table]:
        """The rows of some columns; those of `text` are not taken for numbers in a CSV file.

        Raises ValueError when the file is damaged.
        """
        with self._open(columns, text) as (_, batches):
            for batch in batches:
                yield pa.Table.from_batches([batch])

    @contextlib.contextmanager
    def _open(self, columns: Sequence[str], text: Collection[str]) -> Iterator[tuple[list[str], Iterator[Any]]]:
        try:
            with objects.open_object(self.uri) as source:
                if self.is_parquet:
                    with pq.ParquetFile(source, pre_buffer=False) as table:
                        names = table.schema_arrow.names
                        yield names, table.iter_batches(ROWS_PER_BATCH, columns=list(columns), use_threads=False)
                else:
                    stream = pa.CompressedInputStream(source, "gzip") if self._compressed else source
                    # Read as an integer, the name 007 would become 7.
                    kept = pa.csv.ConvertOptions(
                        column_types=dict.fromkeys(text, pa.string()), include_columns=list(columns)
                    )
                    read = pa.csv.ReadOptions(block_size=BYTES_PER_BLOCK, column_names=self._header, use_threads=False)
                    split = pa.csv.ParseOptions(delimiter=self._separator)
                    with pa.csv.open_csv(stream, read_options=read, parse_options=split, convert_options=kept) as rows:
                        yield rows.schema.names, rows
        except pa.ArrowException as error:
            raise ValueError(
                f"{self._setting} must name a CSV or Parquet file, {self.uri} cannot be read: {error}"
            ) from None


def _separator(start: bytes) -> str:
    """What separates the columns of a CSV file: a comma, unless its first line has semicolons or tabs and no comma."""
    line = start.splitlines()[0] if start else b""
    others = [mark for mark in (";", "\t") if mark.encode() in line]
    return others[0] if len(others) == 1 and b"," not in line else ","


def typed(values: Sequence[str]) -> pa.Array:
    """Texts of a CSV file's column as the type that all of them have: integers, floats, ..., or strings."""
    sink = io.BytesIO()
    pa.csv.write_csv(pa.table({"value": pa.array(values, pa.string())}), sink)
    # A column of one empty line would be no row at all.
    read = pa.csv.ParseOptions(ignore_empty_lines=False)
    return pa.csv.read_csv(pa.BufferReader(sink.getvalue()), parse_options=read)["value"].combine_chunks()

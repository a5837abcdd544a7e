"""Labels as numbers: what a table, a tar's .cls or .json, or a Parquet column says, and the classes' names."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv

from components.config import require
from components.images.config import ImagesConfig
from components.store import objects, parquet

Label = int | str | None
MAX_CLASSES = 1 << 20
"""Numbers of classes from 0 up; above it, a column is no label but an identifier."""


def number_labels(labels: Sequence[Label], names: Sequence[str] = ()) -> tuple[list[int | None], tuple[str, ...]]:
    """The number of each label and the name of each number.

    Integers stay as they are (negative ones, which Hugging Face writes for unknown, become None) and are named by
    `names` or by themselves; names are numbered in sorted order.
    """
    if any(isinstance(label, str) for label in labels):
        texts = [None if label is None else str(label) for label in labels]
        classes = tuple(sorted({text for text in texts if text is not None}))
        place = {name: number for number, name in enumerate(classes)}
        return [None if text is None else place[text] for text in texts], classes
    numbers = [None if label is None or int(label) < 0 else int(label) for label in labels]
    highest = max((number for number in numbers if number is not None), default=-1)
    require(
        highest < MAX_CLASSES,
        f"labels must be class numbers below {MAX_CLASSES}, got {highest}: is it another column that holds the label?",
    )
    known = tuple(names) + tuple(str(number) for number in range(len(names), highest + 1))
    return numbers, known


def read_labels(config: ImagesConfig) -> dict[str, Label]:
    """Label by key from the CSV or Parquet table that `config.labels` names."""
    uri = objects.absolute(str(config.labels))
    try:
        data = objects.read_bytes(uri)
    except FileNotFoundError:
        raise ValueError(f"images.labels must name a CSV or Parquet file, found nothing at {uri}") from None
    try:
        keys = pa.csv.ConvertOptions(column_types={config.key_column: pa.string()})
        table = (
            parquet.from_bytes(data)
            if data.startswith(b"PAR1")
            else pa.csv.read_csv(pa.BufferReader(data), convert_options=keys)
        )
    except pa.ArrowException as error:
        raise ValueError(f"images.labels must name a CSV or Parquet file, {uri} cannot be read: {error}") from None
    missing = [name for name in (config.key_column, config.label_column) if name not in table.column_names]
    require(
        not missing,
        f"{uri} must have the columns '{config.key_column}' and '{config.label_column}', found "
        f"{table.column_names}: set images.key_column and images.label_column",
    )
    found = table[config.key_column].to_pylist()
    require(
        len(set(found)) == len(found), f"{uri} must name each key once, got {len(found) - len(set(found))} repetitions"
    )
    return dict(zip(found, label_values(table[config.label_column], uri), strict=True))


def label_values(column: pa.ChunkedArray, where: str) -> list[Label]:
    """Labels of a column of integers, strings or nothing but nulls; raises ValueError for another type."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    fits = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    require(fits or pa.types.is_null(kind), f"labels must be integers or strings, got {kind} in {where}")
    return column.to_pylist() if fits else [None] * len(column)

"""Labels as class numbers, from what a source gives: integers, names, or nothing."""

from collections.abc import Sequence

import pyarrow as pa

from components.config import require

Label = int | str | None
"""A class number, a class name, or None where it is unknown."""
MAX_CLASSES = 1 << 20
"""Class numbers must be below this; a column with larger numbers is taken for an identifier, not a label."""


def number_labels(labels: Sequence[Label], class_names: Sequence[str] = ()) -> tuple[list[int | None], tuple[str, ...]]:
    """The number of each label and the name of each number.

    Empty text, as in an empty cell of a table, is no label. Integers stay as they are, except that negative ones, which
    Hugging Face writes for unknown, become None; their names are `class_names`, or the numbers themselves. If any label
    is a string, all are names and are numbered in sorted order. Raises ValueError for numbers from MAX_CLASSES on.
    """
    labels = [None if isinstance(label, str) and not label.strip() else label for label in labels]
    if any(isinstance(label, str) for label in labels):
        # A mixed column counts as names: the number 7 becomes the name "7".
        texts = [None if label is None else str(label) for label in labels]
        classes = tuple(sorted({text for text in texts if text is not None}))
        number_of = {name: number for number, name in enumerate(classes)}
        return [None if text is None else number_of[text] for text in texts], classes
    numbers = [None if label is None or int(label) < 0 else int(label) for label in labels]
    highest = max((number for number in numbers if number is not None), default=-1)
    require(
        highest < MAX_CLASSES,
        f"labels must be class numbers below {MAX_CLASSES}, got {highest}: is the label in another column?",
    )
    return numbers, tuple(class_names) + tuple(str(number) for number in range(len(class_names), highest + 1))


def label_values(column: pa.ChunkedArray, where: str) -> list[Label]:
    """Labels of a column of integers or strings, or of nulls only; raises ValueError for another type.

    `where` names the file in the error.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    fits = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    require(fits or pa.types.is_null(kind), f"labels must be integers or strings, got {kind} in {where}")
    return column.to_pylist() if fits else [None] * len(column)

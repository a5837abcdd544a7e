"""Labels as class numbers, from what a source gives: numbers, names, or nothing.

A label is mapped by a stated rule or refused, never guessed:

1. Whole numbers and names are labels as they are; 1.0 is 1, true and false are names, bytes are UTF-8 text, a list of
   one is what is in it. Names are compared without the space around them and in Unicode's composed form (NFC).
2. Null, NaN, empty text and -1, which Hugging Face writes for "unknown", are no label. Anything else is refused.
3. Where a file has a list of class names, its numbers are positions in that list and are replaced by the names. Files
   whose lists differ are thereby joined by name.
4. The classes of a dataset are the labels that occur in it: numbers in their order, names sorted, or in the order of
   the class list if all files have the same. A class of a list that no image has is left out.
"""

import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.config import require

Label = int | str | None
"""A class number, a class name, or None where it is unknown."""
MAX_CLASSES = 1 << 20
"""Class numbers must be below this; a column with larger numbers is taken for an identifier, not a label."""
UNKNOWN = -1
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.0*)?", re.ASCII)  # with a leading zero, as in 007, it is a name


def label_of(value: Any) -> Label:
    """The label that a field holds; raises ValueError when it holds something else."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bytes):
        value = _utf8(value)
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value).strip() or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    require(isinstance(value, int), f"labels must be whole numbers or names, got {_shown(value)}")
    require(value >= UNKNOWN, f"labels must be class numbers from 0 on, or {UNKNOWN} for unknown, got {value}")
    return None if value == UNKNOWN else value


def label_of_text(text: bytes) -> Label:
    """The label in a small text file, such as a .cls: a number in decimal digits, or a name."""
    name = label_of(_utf8(text))
    if isinstance(name, str) and _WHOLE_NUMBER.fullmatch(name):
        return label_of(int(name.split(".")[0]))
    return name


def label_values(column: pa.ChunkedArray, where: str) -> list[Label]:
    """Labels of a column; raises ValueError for values that are none. `where` names the file in the error."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    values = column.to_pylist()
    try:
        if pa.types.is_nested(column.type):
            return [label_of(value) for value in values]
        label_by_value = {value: label_of(value) for value in column.unique().to_pylist()}
    except ValueError as error:
        raise ValueError(f"{error} in {where}, whose labels are of type {column.type}") from None
    return [label_by_value[value] for value in values]


def named_labels(labels: Sequence[Label], class_names: Sequence[str], where: str) -> list[Label]:
    """Labels of a file that has a list of class names: its numbers replaced by their names."""
    outside = [label for label in labels if isinstance(label, int) and label >= len(class_names)]
    require(
        not outside,
        f"labels of {where} must be below {len(class_names)}, the length of its list of class names, got "
        f"{max(outside, default=None)}",
    )
    names = [label_of(name) for name in class_names]
    repeated = len(names) - len(set(names))
    require(repeated == 0, f"{where} must name each class once, got {repeated} repetitions in its list of class names")
    return [names[label] if isinstance(label, int) else label for label in labels]


def class_numbers(
    labels: Collection[Label], class_lists: Collection[tuple[str, ...]] = ()
) -> tuple[dict[Label, int | None], tuple[str, ...]]:
    """The number of each distinct label, and the name of each number (rule 4 above).

    `class_lists` are the different lists of class names of the dataset's files, whose numbers `named_labels` replaced.
    Raises ValueError for numbers from MAX_CLASSES on, and for numbers in files without a list beside files with one.
    """
    known = {label for label in labels if label is not None}
    numbers = sorted(label for label in known if isinstance(label, int))
    if class_lists and numbers:
        raise ValueError(
            f"either all files must name their classes, or none; got numbers without names, for example {numbers[0]}, "
            f"beside a list of class names, {_start_of(next(iter(class_lists)))}: write the same list into every file"
        )
    require(
        not numbers or numbers[-1] < MAX_CLASSES,
        f"labels must be class numbers below {MAX_CLASSES}, got {max(numbers, default=None)}: is the label in another "
        "column?",
    )
    if len(numbers) == len(known):
        ordered: list[Label] = [*numbers]
    elif len(class_lists) == 1 and known <= set(listed := next(iter(class_lists))):
        ordered = [name for name in listed if name in known]
    else:  # a number beside names counts as a name
        ordered = [*sorted({str(label) for label in known})]
    classes = tuple(str(label) for label in ordered)
    number_of = {name: number for number, name in enumerate(classes)}
    return {label: None if label is None else number_of[str(label)] for label in labels}, classes


def number_labels(
    labels: Sequence[Label], class_lists: Collection[tuple[str, ...]] = ()
) -> tuple[list[int | None], tuple[str, ...]]:
    """The number of each label and the name of each number, as `class_numbers`."""
    number_of, classes = class_numbers(set(labels), class_lists)
    return [number_of[label] for label in labels], classes


def _utf8(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"labels must be UTF-8 text, got {_shown(text)}") from None


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."


def _start_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"

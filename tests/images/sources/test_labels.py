"""Labels: tables, names, numbers, and values that are not labels."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.images.sources.labels import number_labels
from components.images.sources.registry import list_images


def test_names_are_numbered_in_sorted_order_and_numbers_are_kept():
    assert number_labels(["dog", None, "cat", "dog"]) == ([1, None, 0, 1], ("cat", "dog"))
    assert number_labels([2, -1, None, 0]) == ([2, None, None, 0], ("0", "1", "2"))
    assert number_labels([0, 3], ["ant", "bee"]) == ([0, 3], ("ant", "bee", "2", "3"))
    assert number_labels([None, None]) == ([None, None], ())


def test_empty_text_is_no_label():
    assert number_labels(["cat", "", " ", None]) == ([0, None, None, None], ("cat",))
    assert number_labels(["", ""]) == ([None, None], ())
    assert number_labels([1, ""]) == ([1, None], ("0", "1"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_empty_cells_of_a_table_are_no_labels(tree, tmp_path, settings, kind):
    keys, names = [f"cat/{number:02}.png" for number in range(4)], ["big", "", "small", ""]
    path = tmp_path / f"labels.{kind}"
    table = pa.table({"key": keys, "label": names})
    pq.write_table(table, path) if kind == "parquet" else pa.csv.write_csv(table, path)
    listing = list_images(settings(uri=str(tree), source="files", labels=str(path)), "unused")
    assert listing.classes == ("big", "small") and listing.table["label"].to_pylist()[:4] == [0, None, 1, None]


def test_an_identifier_is_refused_as_a_label():
    with pytest.raises(ValueError, match="must be class numbers below 1048576, got 123456789"):
        number_labels([1, 123456789])


def test_files_without_a_table_have_no_labels(tree, settings):
    listing = list_images(settings(uri=str(tree), source="files"), "unused")
    assert listing.table.num_rows == 60 and listing.classes == ()
    assert set(listing.table["label"].to_pylist()) == {None}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_labels_the_files_it_names(tree, tmp_path, settings, kind):
    keys = [f"cat/{number:02}.png" for number in range(10)] + ["not/there.png"]
    table = pa.table({"file": keys, "kind": ["big", "small"] * 5 + ["none"]})
    path = tmp_path / f"labels.{kind}"
    pq.write_table(table, path) if kind == "parquet" else pa.csv.write_csv(table, path)
    config = settings(uri=str(tree), source="files", labels=str(path), key_column="file", label_column="kind")
    listing = list_images(config, "unused")
    assert listing.classes == ("big", "small") and listing.table["label"].to_pylist()[:4] == [0, 1, 0, 1]
    assert listing.table["label"].to_pylist()[10:] == [None] * 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must name a CSV or Parquet file, found nothing at"),
        ("name,label\na,1\n", r"must have the columns 'key' and 'label', found \['name', 'label'\]"),
        ("key,label\na,1\na,2\n", "must name each key once, got 1 repetitions"),
        ("key,label\na,1\nb,2\n", r"none of its 2 keys does, for example 'a'"),
        ("key,label\ncat/00.png,0.5\n", "labels must be integers or strings, got double"),
        ("key,label\ncat/00.png,\n", r"column 'label' of .* has none for any of the 60 images: .* leave images.labels"),
    ],
)
def test_a_label_table_that_does_not_match_is_refused(tree, tmp_path, settings, text, message):
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list_images(settings(uri=str(tree), source="files", labels=str(path)), "unused")

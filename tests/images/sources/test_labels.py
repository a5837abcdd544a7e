"""Labels: tables, names, numbers, and values that are not labels."""

import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.images.sources.labels import label_of, label_of_text, label_values, named_labels, number_labels
from components.images.sources.registry import list_images


def test_names_and_numbers_that_occur_are_numbered_in_sorted_order():
    assert number_labels(["dog", None, "cat", "dog"]) == ([1, None, 0, 1], ("cat", "dog"))
    assert number_labels([3, 1, None, 3, 10]) == ([1, 0, None, 1, 2], ("1", "3", "10"))
    assert number_labels([None, None]) == ([None, None], ())


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (7, 7),
        (-1, None),
        (2.0, 2),
        (float("nan"), None),
        (True, "true"),
        (" cat\r\n", "cat"),
        ("", None),
        ("cafe\u0301", "caf\xe9"),
        (b"\xef\xbb\xbfcat", "cat"),
        ([3], 3),
        (["cat"], "cat"),
    ],
)
def test_a_field_is_read_as_a_label(value, label):
    assert label_of(value) == label and type(label_of(value)) is type(label)


@pytest.mark.parametrize("value", [1.5, -2, [1, 2], [], {"id": 1}, b"\xff\xfe", float("inf"), [[1]]])
def test_what_cannot_be_a_label_is_refused(value):
    with pytest.raises(ValueError, match=r"labels must be .*, got "):
        label_of(value)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (b"3", 3),
        (b"\xef\xbb\xbf3\r\n", 3),
        (b"3.0", 3),
        (b"-1", None),
        (b"007", "007"),
        ("²".encode(), "²"),
        (b"v1.5", "v1.5"),
    ],
)
def test_a_label_file_holds_a_number_or_a_name(text, label):
    assert label_of_text(text) == label and type(label_of_text(text)) is type(label)


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([1.0, None, float("nan"), 2.0]), [1, None, None, 2]),
        (pa.array([True, False, None]), ["true", "false", None]),
        (pa.array([b"cat", b"dog"]), ["cat", "dog"]),
        (pa.array([[1], [2], None]), [1, 2, None]),
        (pa.array(["cat", " dog", ""]).dictionary_encode(), ["cat", "dog", None]),
        (pa.nulls(2), [None, None]),
        (pa.array([1, 300], pa.uint16()), [1, 300]),
    ],
)
def test_columns_of_every_type_are_read(column, labels):
    assert label_values(pa.chunked_array([column]), "x.parquet") == labels


@pytest.mark.parametrize("column", [pa.array([0.5, 1.0]), pa.array([[1, 2]]), pa.array([0], pa.date32())])
def test_columns_of_other_values_are_refused(column):
    with pytest.raises(ValueError, match=r"labels must be whole numbers or names, got .* in x\.parquet"):
        label_values(pa.chunked_array([column]), "x.parquet")


def test_the_parts_of_a_class_list_that_occur_keep_its_order():
    labels = named_labels([2, None, 0, None], ["zebra", "cow", "ant"], "x.parquet")
    assert number_labels(labels, [("zebra", "cow", "ant")]) == ([1, None, 0, None], ("zebra", "ant"))
    with pytest.raises(ValueError, match=r"labels of x.parquet must be below 2, .* got 5"):
        named_labels([0, 5], ["ant", "bee"], "x.parquet")


def test_numbers_beside_class_lists_are_refused():
    with pytest.raises(ValueError, match=r"either all files must name their classes, or none; got .* 1, beside"):
        number_labels(["ant", 1], [("ant", "bee")])


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
        (
            "key,label\ncat/00.png,0.5\n",
            "labels must be whole numbers or names, got 0.5 in .*csv, whose labels are of type double",
        ),
        ("key,label\ncat/00.png,\n", r"column 'label' of .* has none for any of the 60 images: .* leave images.labels"),
    ],
)
def test_a_label_table_that_does_not_match_is_refused(tree, tmp_path, settings, text, message):
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list_images(settings(uri=str(tree), source="files", labels=str(path)), "unused")


@pytest.mark.parametrize(
    ("text", "labels", "classes"),
    [
        ("\ufeffkey,label\r\nx/a.png,cat\r\nx/e\u0301.png,dog\r\n", [0, 1], ("cat", "dog")),
        ("key;label\nx/a.png;cat\nx/\u00e9.png;dog\n", [0, 1], ("cat", "dog")),
        ("key\tlabel\n./x/a.png\t2.0\nx/\u00e9.png\t1\n", [1, 0], ("1", "2")),
        ("key,label\n././x/a.png,007\n./x/e\u0301.png,10\n", [0, 1], ("007", "10")),
        ("key,label\nx/a.png,true\nx/\u00e9.png,false\n", [1, 0], ("false", "true")),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_label_tables_are_read_as_programs_write_them(tmp_path, photo, settings, text, labels, classes, form):
    (tmp_path / "i" / "x").mkdir(parents=True)
    names = ["a.png", unicodedata.normalize(form, "\u00e9.png")]
    for name in names:
        photo.save(tmp_path / "i" / "x" / name)
    (tmp_path / "labels.csv").write_bytes(text.encode())
    config = settings(uri=str(tmp_path / "i"), source="files", labels=str(tmp_path / "labels.csv"))
    listing = list_images(config, "unused")
    assert listing.table["label"].to_pylist() == labels and listing.classes == classes


def test_a_table_with_two_labels_for_one_image_is_refused(tree, tmp_path, settings):
    (tmp_path / "labels.csv").write_text("key,label\ncat/00.png,1\n./cat/00.png,2\n")
    with pytest.raises(ValueError, match=r"must name each key once, got 1 repetitions"):
        list_images(settings(uri=str(tree), source="files", labels=str(tmp_path / "labels.csv")), "unused")

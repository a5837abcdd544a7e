"""WebDataset tars and Parquet tables compared with the packed images, on local disk and in an object store."""

import io
import json
import tarfile
import uuid

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.errors import StorageError
from components.images.pixels import PixelReader
from components.images.rejects import inspect_rows
from components.images.sources.file_tree import IMAGE_EXTENSIONS
from components.images.sources.registry import list_images
from components.store import objects


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path / "packed") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def pictures(encoded):
    """Forty images of one colour each: their bytes by number."""
    kinds = ("JPEG", "PNG", "WEBP")
    return [encoded(Image.new("RGB", (20, 20), (number * 6, 0, 0)), kinds[number % 3]) for number in range(40)]


def write_tar(uri: str, members: dict[str, bytes]) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    objects.write_bytes(uri, sink.getvalue())


def write_parquet(uri: str, table: pa.Table, **options) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    objects.write_bytes(uri, sink.getvalue().to_pybytes())


def test_a_tar_gives_images_with_labels_from_cls_or_json(root, pictures, settings, fetch_image):
    half = {f"a/{number:02}.JPG": pictures[number] for number in range(20)}
    write_tar(f"{root}/0.tar", half | {f"a/{number:02}.cls": str(number % 3).encode() for number in range(10)})
    fields = {f"b.{number}.json": json.dumps({"label": number % 2}).encode() for number in range(20, 30)}
    write_tar(f"{root}/deep/1.tar", {f"{n:02}.png": pictures[n] for n in range(30, 40)} | {"30.json": b'{"label": 2}'})
    assert fields  # the extension starts at the first dot of a name, so these fields belong to no image
    write_tar(f"{root}/2.tar", fields | {"x.txt": b"no image"})
    listing = list_images(settings(source="webdataset", uri=root), "unused")
    rows = {row["key"]: row for row in listing.table.to_pylist()}
    assert len(rows) == 30 and list(rows) == sorted(rows) and listing.classes == ("0", "1", "2")
    assert listing.ignored == 11  # the fields, and the text
    assert all(fetch_image(rows[f"0.tar/a/{number:02}.JPG"]) == pictures[number] for number in range(20))
    assert fetch_image(rows["deep/1.tar/30.png"]) == pictures[30] and rows["deep/1.tar/30.png"]["label"] == 2
    assert [rows[f"0.tar/a/{number:02}.JPG"]["label"] for number in (4, 9, 15)] == [1, 0, None]


def test_a_tar_gives_images_of_every_extension_that_a_tree_gives(root, pictures, settings):
    names = [f"{number}.{extension}" for number, extension in enumerate(IMAGE_EXTENSIONS)]
    write_tar(f"{root}/0.tar", dict.fromkeys(names, pictures[0]) | {".hidden.png": b"x", "a.cls": b" "})
    listing = list_images(settings(source="webdataset", uri=root), "unused")
    assert listing.table["key"].to_pylist() == sorted(f"0.tar/{name}" for name in names)
    assert listing.classes == () and listing.ignored == 2  # the hidden file, and the label without an image


@pytest.mark.parametrize("layout", ["struct", "binary"])
def test_a_parquet_table_gives_images_in_file_and_row_order(root, pictures, settings, layout, fetch_image):
    images = [{"bytes": data, "path": None} for data in pictures] if layout == "struct" else pictures
    table = pa.table({"image": images, "label": [number % 4 - 1 for number in range(40)]})
    write_parquet(f"{root}/train-0.parquet", table.slice(0, 25), row_group_size=10)
    write_parquet(f"{root}/train-1.parquet", table.slice(25).drop_columns(["label"]))
    config = settings(source="parquet", uri=root)
    listing = list_images(config, "unused")
    assert [fetch_image(row) for row in listing.table.to_pylist()] == pictures
    labels = [None if number % 4 == 0 or number >= 25 else number % 4 - 1 for number in range(40)]
    assert listing.table["label"].to_pylist() == labels and listing.classes == ("0", "1", "2")
    pixels = PixelReader(config, 0).read(listing.table.append_column("copy", pa.array([0] * 40, pa.int16())))
    assert (np.abs(pixels[:, 8, 8, 0].astype(int) - 6 * np.arange(40)) <= 4).all()


def test_class_names_come_from_hugging_face_metadata(root, pictures, settings):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    rows = {"image": [Image.open(io.BytesIO(data)) for data in pictures[:4]], "label": [0, 1, 1, 0]}
    sink = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(sink)
    objects.write_bytes(f"{root}/part.parquet", sink.getvalue())
    listing = list_images(settings(source="parquet", uri=root), "unused")
    assert listing.classes == ("ant", "bee") and listing.table["label"].to_pylist() == [0, 1, 1, 0]
    assert inspect_rows(listing.table, settings(source="parquet", uri=root)).rejects == []


def test_bad_and_missing_images_in_archives_are_rejected(root, pictures, settings):
    write_parquet(f"{root}/t.parquet", pa.table({"image": [b"text", None, b"", pictures[0]]}))
    config = settings(source="parquet", uri=root)
    reasons = [reject.reason for reject in inspect_rows(list_images(config, "unused").table, config).rejects]
    assert reasons == ["not_an_image", "empty", "empty"]


def test_a_rewritten_archive_is_detected(root, pictures, settings, fetch_image):
    write_tar(f"{root}/0.tar", {"a.jpg": pictures[0], "b.jpg": pictures[3]})
    (row, _) = list_images(settings(source="webdataset", uri=root), "unused").table.to_pylist()
    write_tar(f"{root}/0.tar", {"c.jpg": pictures[1], "b.jpg": pictures[2]})
    with pytest.raises(StorageError, match=r"0\.tar changed since the snapshot listed it"):
        fetch_image(row)


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("webdataset", b"no tar", r"must be a whole, uncompressed tar, it begins with 6e6f20746172"),
        ("parquet", b"no table", r"must be a whole Parquet file, its footer or its labels cannot be read"),
        ("parquet", pa.table({"picture": [b"x"]}), r"must have the column 'image', found \['picture'\]"),
        ("parquet", pa.table({"image": ["x"]}), r"must be binary or struct<bytes, path>, got string"),
        ("parquet", pa.table({"image": [b"x"], "label": [0.5]}), r"labels must be whole numbers or names, got 0.5"),
    ],
)
def test_files_of_another_format_are_refused(tmp_path, settings, source, content, message):
    uri = f"{tmp_path}/0.{'tar' if source == 'webdataset' else 'parquet'}"
    write_parquet(uri, content) if isinstance(content, pa.Table) else objects.write_bytes(uri, content)
    with pytest.raises(ValueError, match=message):
        list_images(settings(source=source, uri=str(tmp_path)), "unused")


def hugging_face_table(images: list[bytes], labels: list[int], names: list[str]) -> pa.Table:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": data, "path": None} for data in images], "label": labels}
    return datasets.Dataset.from_dict(rows, features=features).data.table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
    )


def test_files_whose_class_lists_differ_are_joined_by_name(tmp_path, pictures, settings):
    write_parquet(f"{tmp_path}/a.parquet", hugging_face_table(pictures[:3], [0, 1, 2], ["cat", "dog", "eel"]))
    write_parquet(f"{tmp_path}/b.parquet", hugging_face_table(pictures[3:6], [0, 1, -1], ["dog", "cat", "ape"]))
    listing = list_images(settings(source="parquet", uri=str(tmp_path)), "unused")
    assert listing.classes == ("cat", "dog", "eel") and listing.table["label"].to_pylist() == [0, 1, 2, 1, 0, None]


def test_files_with_equal_class_lists_keep_the_order_of_the_classes_that_occur(tmp_path, pictures, settings):
    for number, labels in enumerate(([3, 1], [1, 1])):
        table = hugging_face_table(pictures[:2], labels, ["emu", "cow", "bee", "ant"])
        write_parquet(f"{tmp_path}/{number}.parquet", table)
    listing = list_images(settings(source="parquet", uri=str(tmp_path)), "unused")
    assert listing.classes == ("cow", "ant") and listing.table["label"].to_pylist() == [1, 0, 0, 0]


def test_numbers_beside_files_with_class_names_are_refused(tmp_path, pictures, settings):
    write_parquet(f"{tmp_path}/a.parquet", hugging_face_table(pictures[:2], [0, 1], ["cat", "dog"]))
    write_parquet(f"{tmp_path}/b.parquet", pa.table({"image": pictures[:2], "label": [0, 1]}))
    with pytest.raises(
        ValueError, match="either all files must name their classes, or none; got numbers without names"
    ):
        list_images(settings(source="parquet", uri=str(tmp_path)), "unused")


def test_all_files_that_cannot_be_read_are_named_together(tmp_path, pictures, settings):
    table = pa.table({"image": pictures, "label": [1] * 40})
    write_parquet(f"{tmp_path}/whole.parquet", table)
    whole = (tmp_path / "whole.parquet").read_bytes()
    for name, data in (("cut", whole[:-50]), ("empty", b""), ("magic", b"PAR2" + whole[4:-4] + b"PAR2")):
        (tmp_path / f"{name}.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"all 4 packed files must be readable, 3 are not") as error:
        list_images(settings(source="parquet", uri=str(tmp_path)), "unused")
    assert [name in str(error.value) for name in ("cut", "empty", "magic", "whole.parquet")] == [True] * 3 + [False]


def test_damaged_labels_of_a_table_are_refused_by_name(tmp_path, pictures, settings):
    table = pa.table({"image": pictures, "label": [f"label {number}" for number in range(40)]})
    write_parquet(f"{tmp_path}/a.parquet", table, write_page_checksum=True, compression="none")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[data.index(b"label 30")] ^= 1
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.parquet must be a whole Parquet file, its footer or its labels cannot"):
        list_images(settings(source="parquet", uri=str(tmp_path)), "unused")

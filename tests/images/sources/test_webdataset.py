"""Tars as people have them: names, labels, links, damage; and the requests that listing and reading them takes."""

import gzip
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from components.images.pixels import PixelReader
from components.images.rejects import inspect_rows
from components.images.sources.registry import list_images


@pytest.fixture
def jpeg(encoded) -> bytes:
    return encoded(Image.new("RGB", (20, 20), (90, 0, 0)), "JPEG")


@pytest.fixture
def list_tar(tmp_path, settings):
    """list_tar(data): the listing of a folder with these bytes as its only tar."""

    def listing(data: bytes):
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / "a.tar").write_bytes(data)
        return list_images(settings(source="webdataset", uri=str(tmp_path / "t")), "unused")

    return listing


def tar_bytes(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return sink.getvalue()


def header_of(data: bytes, number: int) -> int:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()[number].offset


def keys_of(listing) -> list[str]:
    return [key.removeprefix("a.tar/") for key in listing.table["key"].to_pylist()]


def test_names_with_dots_are_images_unless_they_go_with_one(list_tar, jpeg):
    dated = {"IMG_0.jpg": jpeg, "IMG_1.v2.jpg": jpeg, "2024.05.01.png": jpeg, "2024.05.02.png": jpeg}
    listing = list_tar(tar_bytes(dated | {"2024.05.02.cls": b"cat", "IMG_1.cls": b"dog"}))
    assert keys_of(listing) == sorted(dated) and listing.ignored == 0
    assert listing.table["label"].to_pylist() == [None, 0, None, 1] and listing.classes == ("cat", "dog")
    masked = {"0.jpg": jpeg, "0.seg.png": jpeg, "1.seg.png": jpeg, "README": b"", "png": b""}
    listing = list_tar(tar_bytes(masked))
    assert keys_of(listing) == ["0.jpg"] and listing.ignored == 4


def test_links_are_the_images_that_they_point_to(list_tar, jpeg, fetch_image):
    listing = list_tar(tar_bytes({"./a/0.jpg": jpeg}, {"./a/1.jpg": "0.jpg", "./b/2.jpg": "../a/0.jpg", "3.jpg": "no"}))
    assert keys_of(listing) == ["./a/0.jpg", "./a/1.jpg", "./b/2.jpg"] and listing.ignored == 1
    assert [fetch_image(row) for row in listing.table.to_pylist()] == [jpeg] * 3


def test_labels_that_are_none_are_told_with_count_and_example(list_tar, jpeg):
    good = [(7, 7), (1.0, 1), ("cat", "cat"), (None, None), ([3], 3)]
    files = {f"{number}.json": json.dumps({"label": value}).encode() for number, (value, _) in enumerate(good)}
    listing = list_tar(tar_bytes(files | {f"{number}.jpg": jpeg for number in range(5)}))
    assert listing.classes == ("1", "3", "7", "cat") and listing.table["label"].to_pylist() == [2, 0, 3, None, 1]
    for value in (b'{"label": [1, 2]}', b'{"label": 1.5}', b"{", b"[]", b'{"label": {}}'):
        bad = {"8.json": value, "9.json": value}
        with pytest.raises(ValueError, match=r"the labels in .*a\.tar must .*, got 2 others, for example '8.json'"):
            list_tar(tar_bytes(files | bad | {"8.jpg": jpeg}))


@pytest.mark.parametrize("field", [20, 150])
def test_a_damaged_header_is_a_reject_that_names_the_tar(list_tar, jpeg, settings, field):
    data = bytearray(tar_bytes({f"{number}.jpg": jpeg for number in range(10)}))
    data[header_of(data, 3) + field] ^= 1
    listing = list_tar(bytes(data))
    rejects = inspect_rows(listing.table, settings()).rejects
    assert listing.table.num_rows == 10 and len(rejects) == 1
    assert rejects[0].reason == "damaged_archive" and rejects[0].uri.endswith("a.tar")
    assert "no readable header: at least one file" in rejects[0].error


def test_cut_and_foreign_files_are_refused_by_name(list_tar, jpeg):
    data = tar_bytes({f"{number}.jpg": jpeg for number in range(4)})
    start = header_of(data, 2)
    for stop, where in ((start + 200, f"byte {start} "), (start + 600, "'2.jpg'")):
        with pytest.raises(ValueError, match=rf"a\.tar must be a whole tar, it is cut .* from {where}.* after 2 f"):
            list_tar(data[:stop])
    with pytest.raises(ValueError, match=r"a\.tar must be a tar, it is empty"):
        list_tar(b"")
    with pytest.raises(ValueError, match=r"a\.tar must be .*, it is compressed with gzip: unpack it"):
        list_tar(gzip.compress(data))


def test_a_tar_without_its_end_is_noted(list_tar, jpeg, settings):
    data = tar_bytes({"0.jpg": jpeg})
    listing = list_tar(data[: 512 + -(-len(jpeg) // 512) * 512])
    assert keys_of(listing) == ["0.jpg", "end of the tar"]
    assert [reject.reason for reject in inspect_rows(listing.table, settings()).rejects] == ["damaged_archive"]


def test_repeated_names_and_two_images_of_a_sample_are_refused(list_tar, jpeg):
    with pytest.raises(ValueError, match=r"a sample must have one image, '0' in .*a\.tar has '0.jpg' and '0.png'"):
        list_tar(tar_bytes({"0.jpg": jpeg, "0.png": jpeg}))
    end = len(tar_bytes({"0.jpg": jpeg}))
    with pytest.raises(ValueError, match=r"a\.tar must hold each file once, '0.jpg' is repeated"):
        list_tar(tar_bytes({"0.jpg": jpeg})[:end] + tar_bytes({"0.jpg": jpeg}))


def test_listing_large_images_reads_headers_and_encoding_reads_neighbours_together(list_tar, jpeg, requests, settings):
    padded = jpeg + bytes(500_000)
    files = {f"{n:03}.{kind}": padded if kind == "jpg" else b"3" for n in range(40) for kind in ("cls", "jpg")}
    data = tar_bytes(files)
    listing = list_tar(data)
    assert len(requests) <= 44 and sum(part.size for part in requests) < 400_000 < len(data) / 50
    requests.clear()
    rows = listing.table.append_column("copy", pa.array([0] * 40, pa.int16()))
    pixels, refused = PixelReader(settings(), 0).read_usable(rows)
    assert not refused and (np.abs(pixels[:, 8, 8, 0].astype(int) - 90) <= 4).all()
    assert len(requests) <= 4 and sum(part.size for part in requests) <= len(data)


def test_small_images_are_listed_in_one_stream_and_read_by_range(list_tar, jpeg, requests, settings):
    data = tar_bytes({f"{number:05}.jpg": jpeg for number in range(3000)})
    listing = list_tar(data)
    assert len(requests) <= 3 + len(data) // (4 << 20) and sum(part.size for part in requests) < 1.1 * len(data)
    requests.clear()
    rows = listing.table.append_column("copy", pa.array([0] * 3000, pa.int16()))
    random = rows.take(pa.array(np.random.default_rng(0).permutation(3000)[:64]))
    _, refused = PixelReader(settings(), 0).read_usable(random)
    assert not refused and len(requests) <= 64

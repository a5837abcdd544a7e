"""Entries of tars compared with Python's tarfile, and with damage whose place is known."""

import io
import subprocess
import tarfile

import pytest

from components.images.sources.ranges import RisingReader
from components.images.sources.tar_entries import DamagedPart, TarEntry, tar_entries

FILES = {f"{'deep/' * (number % 40)}{number:03}.jpg": bytes([number]) * (number * 97) for number in range(50)}


def tar_bytes(files: dict[str, bytes], **options) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", **options) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


@pytest.fixture
def entries(tmp_path):
    """entries(data): what is found in a tar with these bytes."""

    def read(data: bytes) -> list[TarEntry | DamagedPart]:
        (tmp_path / "a.tar").write_bytes(data)
        return list(tar_entries(RisingReader(str(tmp_path / "a.tar"), len(data))))

    return read


def files_in(data: bytes, found: list[TarEntry | DamagedPart]) -> dict[str, bytes]:
    return {one.name: data[one.data.offset : one.data.stop] for one in found if isinstance(one, TarEntry)}


def header_of(data: bytes, number: int) -> int:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()[number].offset


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_any_length_and_all_bytes_are_found(entries, form):
    files = FILES | ({"\u00fc" * 120: b"long"} if form != tarfile.USTAR_FORMAT else {})
    data = tar_bytes(files, format=form)
    assert files_in(data, entries(data)) == files


def test_a_gnu_tar_with_links_folders_and_holes_is_read(entries, tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "1.jpg").write_bytes(b"one")
    (tmp_path / "d" / "2.jpg").hardlink_to(tmp_path / "d" / "1.jpg")
    (tmp_path / "d" / "3.jpg").symlink_to("1.jpg")
    with open(tmp_path / "d" / "4.jpg", "wb") as holes:
        holes.seek(1 << 20)
        holes.write(b"end")
    command = ["tar", "--sparse", "--sort=name", "-cf", tmp_path / "a.tar", "-C", tmp_path, "d"]
    subprocess.run(command, check=True)
    found = entries((tmp_path / "a.tar").read_bytes())
    assert [(one.name, one.kind) for one in found] == [
        ("d", "other"),
        ("d/1.jpg", "file"),
        ("d/2.jpg", "hard link"),
        ("d/3.jpg", "symbolic link"),
        ("d/4.jpg", "sparse"),
        ("d/e", "other"),
    ]
    assert [found[2].target, found[3].target] == ["d/1.jpg", "1.jpg"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("number", [0, 7, 48])
def test_one_damaged_header_loses_one_file(entries, form, number):
    data = bytearray(tar_bytes(FILES, format=form))
    start = header_of(data, number)
    stop = header_of(data, number + 1)
    data[start + 20] ^= 1
    found = entries(bytes(data))
    names = list(FILES)
    assert list(files_in(data, found)) == names[:number] + names[number + 1 :]
    assert [one for one in found if isinstance(one, DamagedPart)] == [DamagedPart(start, stop)]


def test_bytes_that_are_missing_in_the_middle_lose_what_they_held(entries):
    data = tar_bytes(FILES)
    start, stop = header_of(data, 20), header_of(data, 23)
    cut = data[: start + 1000] + data[stop - 777 :]
    found = entries(cut)
    read = files_in(cut, found)
    lost = [name for name, content in FILES.items() if read.get(name) != content]
    assert lost == list(FILES)[20:23] and any(isinstance(one, DamagedPart) for one in found)


def test_joined_tars_are_read_to_the_end(entries):
    one, other = tar_bytes({"a.jpg": b"a"}), tar_bytes({"b.jpg": b"b"})
    found = entries(one + other)
    assert files_in(one + other, found) == {"a.jpg": b"a", "b.jpg": b"b"} and len(found) == 2


def test_a_missing_end_is_told(entries):
    data = tar_bytes({"a.jpg": b"a" * 700, "b.jpg": b"b"})
    end = header_of(data, 1) + 1024
    assert [len(entries(data[:stop])) for stop in (len(data), end + 1024, end + 512, end)] == [2, 2, 2, 3]
    assert entries(data[:end])[-1] == DamagedPart(end, end)
    start = header_of(data, 1)
    assert entries(data[: start + 200])[-2:][0] == DamagedPart(start, start + 200)


def test_lost_data_that_reads_as_zeros_is_no_end(entries):
    data = tar_bytes({f"{number}.jpg": bytes([7]) * 400_000 for number in range(10)})
    start, stop = header_of(data, 2), header_of(data, 7)
    hole = data[:start] + bytes(stop - start) + data[stop:]
    found = entries(hole)
    assert list(files_in(hole, found)) == [f"{number}.jpg" for number in (0, 1, 7, 8, 9)]
    assert found[2] == DamagedPart(start, stop)

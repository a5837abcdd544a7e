"""The source registry: its names, its archive formats, and a source added by a test."""

import io
import re
import uuid
import zipfile
from collections.abc import Sequence
from typing import get_args

import pyarrow as pa
import pytest

from components.errors import StorageError
from components.images.config import BUNDLED_SOURCES, SOURCE_SUMMARIES, ImagesConfig, SourceName
from components.images.pixels import PixelReader
from components.images.sources.archives import ArchiveFormat, ArchiveIndex, ArchiveMember, list_archives
from components.images.sources.registry import SOURCES, Source, archive_format, list_images
from components.store import objects


def _index_zip(file: objects.StoredObject, config: ImagesConfig) -> ArchiveIndex:
    with objects.open_object(file.uri) as source, zipfile.ZipFile(source) as packed:
        infos = packed.infolist()
    members = [
        ArchiveMember(info.filename, info.filename.split("-")[0], info.filename, info.file_size) for info in infos
    ]
    return ArchiveIndex(members)


def _read_zip_members(uri: str, members: Sequence[str], version: str) -> list[bytes]:
    with objects.open_object(uri) as source, zipfile.ZipFile(source) as packed:
        return [packed.read(member) for member in members]


ZIP = ArchiveFormat(
    extension="zip",
    index=_index_zip,
    join_members=lambda members: iter([list(range(len(members)))]),
    read_members=_read_zip_members,
)


def write_zip(uri: str, members: dict[str, bytes]) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    objects.write_bytes(uri, sink.getvalue())


@pytest.fixture
def zipped(monkeypatch, photo, encoded) -> tuple[ImagesConfig, dict[str, bytes]]:
    """The config of a registered zip source with two files, and the images in them by key."""
    monkeypatch.setitem(
        SOURCES,
        "zip of a test",
        Source(list_images=lambda config, _, without: list_archives(config, ZIP, without), archive=ZIP),
    )
    root = f"memory://{uuid.uuid4().hex}"
    images = {f"{n % 2}.zip/{'ant' if n < 3 else 'bee'}-{n}.png": encoded(photo.rotate(n), "PNG") for n in range(6)}
    for number in range(2):
        prefix = f"{number}.zip/"
        members = {key.removeprefix(prefix): data for key, data in images.items() if key.startswith(prefix)}
        write_zip(f"{root}/{number}.zip", members)
    return ImagesConfig(source="zip of a test", uri=root, image_size=16), images  # type: ignore[arg-type]


def test_the_registry_has_exactly_the_source_names_of_the_config():
    assert tuple(SOURCES) == tuple(SOURCE_SUMMARIES) == get_args(SourceName)


def test_only_bundled_sources_need_no_uri():
    assert [name for name, source in SOURCES.items() if source.bundled] == list(BUNDLED_SOURCES)
    for name, source in SOURCES.items():
        if source.bundled:
            assert ImagesConfig(source=name, image_size=16).uri is None
        else:
            with pytest.raises(ValueError, match=r"images\.uri must name the folder"):
                ImagesConfig(source=name, image_size=16)


def test_each_extension_belongs_to_one_archive_format():
    formats = {source.archive for source in SOURCES.values() if source.archive}
    assert len({each.extension for each in formats}) == len(formats)
    assert all(archive_format(f"s3://bucket/Some.{each.extension.upper()}") is each for each in formats)


def test_an_unknown_archive_extension_is_reported():
    extensions = sorted({source.archive.extension for source in SOURCES.values() if source.archive})
    with pytest.raises(StorageError, match=rf"a\.rar must end with one of {re.escape(str(extensions))}"):
        archive_format("a.rar")


def test_a_registered_source_is_listed_and_its_members_are_fetched(zipped, fetch_image):
    config, images = zipped
    listing = list_images(config, "unused")
    assert {row["key"]: fetch_image(row) for row in listing.table.to_pylist()} == images
    assert listing.classes == ("ant", "bee") and listing.table["label"].to_pylist() == [0, 0, 1, 0, 1, 1]
    rows = listing.table.append_column("copy", pa.array([0] * 6, pa.int16()))
    assert PixelReader(config, 0).read(rows).shape == (6, 16, 16, 3)


def test_a_rewritten_file_of_a_registered_source_is_detected(zipped, fetch_image):
    config, images = zipped
    row = list_images(config, "unused").table.to_pylist()[0]
    write_zip(row["uri"], {row["member"]: images[row["key"]], "other.png": b""})
    with pytest.raises(StorageError, match=r"0\.zip changed since the snapshot listed it"):
        fetch_image(row)

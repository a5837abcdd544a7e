"""Sources that pack many images into a file: WebDataset tar shards, and Parquet tables with encoded images.

A row's `member` says where in the file its image is: "offset:size" in a tar, "row group:row:column" in Parquet. Its
etag is the file's own, so a file that is rewritten counts as new images, and one that is added touches no other.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from components.config import require
from components.images.config import ImagesConfig
from components.images.labels import Label, label_values, number_labels
from components.images.listing import LISTING_SCHEMA, Listing, files_with_extension, visible_files
from components.store import objects

MEMBER_EXTENSIONS = ("jpeg", "jpg", "png", "webp")
"""Extensions of a WebDataset sample's image."""
CONCURRENT_INDEXES = 8
"""Packed files whose indexes are read at the same time."""


class ArchiveMember(NamedTuple):
    """One image in a packed file."""

    name: str
    """Unique in the file, sorted as the images lie."""
    label: Label
    place: str
    size: int | None


def list_webdataset(config: ImagesConfig) -> Listing:
    """Tar shards whose files belong together by the part of their name before the first dot."""
    return _list(config, ("tar",), _members_of_tar)


def list_parquet(config: ImagesConfig) -> Listing:
    """Parquet tables; an image's key is its file and its row."""
    return _list(config, ("parquet",), _members_of_parquet)


def _list(config: ImagesConfig, extensions: Sequence[str], members_of: Any) -> Listing:
    root = objects.absolute(str(config.uri))
    shown, total = visible_files(root, f"a folder with .{extensions[0]} files")
    files = files_with_extension(shown, extensions, root)
    with ThreadPoolExecutor(CONCURRENT_INDEXES) as pool:
        found = list(pool.map(lambda file: members_of(file, config), files))
    names: Sequence[str] = next((names for names, _ in found if names), ())
    rows = [(file, member) for file, (_, members) in zip(files, found, strict=True) for member in members]
    require(bool(rows), f"images.uri must hold images, found none in the {len(files)} files under {root}")
    labels, classes = number_labels([member.label for _, member in rows], names)
    columns = [
        [f"{file.path}/{member.name}" for file, member in rows],
        labels,
        [file.uri for file, _ in rows],
        [member.place for _, member in rows],
        [member.size for _, member in rows],
        [file.etag for file, _ in rows],
    ]
    table = pa.table(columns, schema=LISTING_SCHEMA).sort_by("key")
    return Listing(table, classes, ignored=total - len(files))


# --- tar --------------------------------------------------------------------------------------------------------------


def _members_of_tar(file: objects.StoredObject, config: ImagesConfig) -> tuple[Sequence[str], list[ArchiveMember]]:
    """Images of one tar by the order of their keys; only headers and labels are read."""
    try:
        with objects.open_object(file.uri) as source, tarfile.open(fileobj=source, mode="r:") as tar:
            found = list(_samples(tar, config))
    except tarfile.TarError as error:
        raise ValueError(
            f"{file.uri} must be a whole, uncompressed tar: {error}. Write it again or take it out"
        ) from None
    twice = len(found) - len({member.name for member in found})
    require(twice == 0, f"{file.uri} must hold each sample once, found {twice} repeated names")
    return (), found


def _samples(tar: tarfile.TarFile, config: ImagesConfig) -> Iterator[ArchiveMember]:
    labels: dict[str, Label] = {}
    images: dict[str, tarfile.TarInfo] = {}
    for entry in tar:
        folder, _, name = entry.name.rpartition("/")
        stem, _, extension = name.partition(".")
        sample, kind = f"{folder}/{stem}" if folder else stem, extension.lower()
        if not entry.isfile() or name.startswith("."):
            continue
        if kind in ("cls", "json"):
            labels.setdefault(sample, _label(tar, entry, kind, config))
        elif kind in MEMBER_EXTENSIONS:
            require(sample not in images, f"a sample must have one image, '{sample}' in {tar.name!r} has more")
            images[sample] = entry
    for sample, entry in images.items():
        yield ArchiveMember(entry.name, labels.get(sample), f"{entry.offset_data}:{entry.size}", entry.size)


def _label(tar: tarfile.TarFile, entry: tarfile.TarInfo, kind: str, config: ImagesConfig) -> Label:
    data = tar.extractfile(entry)
    text = data.read().decode("utf-8", "replace").strip() if data else ""
    if kind == "json":
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        value = found.get(config.label_column) if isinstance(found, dict) else None
        return value if isinstance(value, int | str) else None
    return int(text) if text.lstrip("-").isdigit() else text or None


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _members_of_parquet(file: objects.StoredObject, config: ImagesConfig) -> tuple[Sequence[str], list[ArchiveMember]]:
    """Rows of one table; of its columns only the labels are read."""
    try:
        with objects.open_object(file.uri) as source, pq.ParquetFile(source, pre_buffer=False) as table:
            schema, groups = (
                table.schema_arrow,
                [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)],
            )
            _check_images(schema, config, file.uri)
            labelled = config.label_column in schema.names
            read = table.read([config.label_column], use_threads=False) if labelled else None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file.uri} must be a Parquet file: {error}. Write it again or take it out") from None
    labels = label_values(read[config.label_column], file.uri) if read is not None else [None] * sum(groups)
    places = [(group, row) for group, rows in enumerate(groups) for row in range(rows)]
    members = [
        ArchiveMember(f"{number:09}", label, f"{group}:{row}:{config.image_column}", None)
        for number, ((group, row), label) in enumerate(zip(places, labels, strict=True))
    ]
    return _names(schema, config.label_column), members


def _check_images(schema: pa.Schema, config: ImagesConfig, uri: str) -> None:
    name = config.image_column
    require(
        name in schema.names,
        f"{uri} must have the column '{name}', found {schema.names}: set images.image_column to the images' one",
    )
    kind = schema.field(name).type
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    fits = pa.types.is_binary(inner) or pa.types.is_large_binary(inner)
    require(fits, f"column '{name}' of {uri} must be binary or struct<bytes, path>, got {kind}")


def _names(schema: pa.Schema, label_column: str) -> Sequence[str]:
    """Names of the classes where Hugging Face wrote them into the schema."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label_column]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return [str(name) for name in names] if isinstance(names, list) else ()

"""Source `parquet`: tables with a column of encoded images, as Hugging Face writes them.

The member of a row is "row group:row:column", where the row is counted within its row group.
"""

import json
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.archives import ArchiveFormat, ArchiveIndex, ArchiveMember, EncodedImage, list_archives
from components.images.sources.labels import Label, label_of, label_values, named_labels
from components.images.sources.row_groups import READ_ERRORS, row_group
from components.store import objects


def list_parquet(config: ImagesConfig, snapshot_folder: str, without: Sequence[str]) -> Listing:
    """The images of all tables below `config.uri`; an image's key is its file and its row."""
    return list_archives(config, PARQUET_ARCHIVE, without)


def parquet_member(group: int, row: int, column: str) -> str:
    """Where an image is in its table."""
    return f"{group}:{row}:{column}"


# --- listing ----------------------------------------------------------------------------------------------------------


def _index_parquet(file: objects.StoredObject, config: ImagesConfig) -> ArchiveIndex:
    """Rows of one table; of its columns, only that of the labels is read."""
    require(file.size > 0, f"{file.uri} must be a Parquet file, it is empty: write it again or take it out")
    try:
        with pq.ParquetFile(
            objects.range_file(file.uri, file.size), pre_buffer=False, page_checksum_verification=True
        ) as table:
            schema, metadata = table.schema_arrow, table.metadata
            rows_by_group = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            _check_image_column(schema, config, file.uri)
            has_labels = config.label_column in schema.names
            label_table = table.read([config.label_column], use_threads=False) if has_labels else None
    except FileNotFoundError:
        raise
    except READ_ERRORS as error:
        raise ValueError(
            f"{file.uri} must be a whole Parquet file, its footer or its labels cannot be read ({error}): write it "
            "again or take it out"
        ) from None
    labels: list[Label] = [None] * sum(rows_by_group)
    class_names = _hugging_face_names(schema, config.label_column)
    if label_table is not None:
        labels = label_values(label_table[config.label_column], file.uri)
    if class_names:
        labels = named_labels(labels, class_names, file.uri)
    positions = [(group, row) for group, rows in enumerate(rows_by_group) for row in range(rows)]
    members = [
        # Padded, so that keys sort in the order of the rows.
        ArchiveMember(f"{number:09}", label, parquet_member(group, row, config.image_column), None)
        for number, ((group, row), label) in enumerate(zip(positions, labels, strict=True))
    ]
    return ArchiveIndex(members, class_names)


def _check_image_column(schema: pa.Schema, config: ImagesConfig, uri: str) -> None:
    name = config.image_column
    require(
        name in schema.names,
        f"{uri} must have the column '{name}', found {schema.names}: set images.image_column to the column with images",
    )
    kind = schema.field(name).type
    inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
    fits = pa.types.is_binary(inner) or pa.types.is_large_binary(inner)
    require(fits, f"column '{name}' of {uri} must be binary or struct<bytes, path>, got {kind}")


def _hugging_face_names(schema: pa.Schema, label_column: str) -> tuple[str, ...]:
    """Class names, where Hugging Face wrote them into the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label_column]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(str(label_of(str(name))) for name in names) if isinstance(names, list) else ()


# --- reading ----------------------------------------------------------------------------------------------------------


def _join_by_row_group(members: Sequence[str]) -> Iterator[list[int]]:
    """Positions of the members of each row group, by rising row."""
    places = [(*map(int, member.split(":", 2)[:2]), position) for position, member in enumerate(members)]
    by_group: dict[int, list[int]] = {}
    for group, _, position in sorted(places):
        by_group.setdefault(group, []).append(position)
    yield from by_group.values()


def _read_parquet_members(uri: str, members: Sequence[str], version: str) -> Iterator[EncodedImage]:
    """Images of one row group, which is read once if their rows rise."""
    for member in members:
        group, row, column = member.split(":", 2)
        yield row_group(uri, version, int(group), column).image(int(row))


PARQUET_ARCHIVE = ArchiveFormat(
    extension="parquet", index=_index_parquet, join_members=_join_by_row_group, read_members=_read_parquet_members
)

"""Source `parquet`: tables with a column of encoded images, as Hugging Face writes them.

The member of a row is "row group:row:column", where the row is counted within its row group.
"""

import functools
import json
import threading
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.archives import ArchiveFormat, ArchiveIndex, ArchiveMember, list_archives
from components.images.sources.labels import Label, label_values
from components.store import objects

CACHED_ROW_GROUPS = 2
"""Row groups of encoded images that a process holds. Rows are read in their order, so each group is read once."""
_group_lock = threading.Lock()


def list_parquet(config: ImagesConfig, snapshot_folder: str, without: Sequence[str]) -> Listing:
    """The images of all tables below `config.uri`; an image's key is its file and its row."""
    return list_archives(config, PARQUET_ARCHIVE, without)


def parquet_member(group: int, row: int, column: str) -> str:
    """Where an image is in its table."""
    return f"{group}:{row}:{column}"


# --- listing ----------------------------------------------------------------------------------------------------------


def _index_parquet(file: objects.StoredObject, config: ImagesConfig) -> ArchiveIndex:
    """Rows of one table; of its columns, only that of the labels is read."""
    try:
        with objects.open_object(file.uri) as source, pq.ParquetFile(source, pre_buffer=False) as table:
            schema, metadata = table.schema_arrow, table.metadata
            rows_by_group = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            _check_image_column(schema, config, file.uri)
            has_labels = config.label_column in schema.names
            label_table = table.read([config.label_column], use_threads=False) if has_labels else None
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file.uri} must be a Parquet file: {error}. Write it again or take it out") from None
    labels: list[Label] = [None] * sum(rows_by_group)
    if label_table is not None:
        labels = label_values(label_table[config.label_column], file.uri)
    positions = [(group, row) for group, rows in enumerate(rows_by_group) for row in range(rows)]
    members = [
        # Padded, so that keys sort in the order of the rows.
        ArchiveMember(f"{number:09}", label, parquet_member(group, row, config.image_column), None)
        for number, ((group, row), label) in enumerate(zip(positions, labels, strict=True))
    ]
    return ArchiveIndex(members, _hugging_face_names(schema, config.label_column))


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


def _hugging_face_names(schema: pa.Schema, label_column: str) -> Sequence[str]:
    """Class names, where Hugging Face wrote them into the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label_column]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    return [str(name) for name in names] if isinstance(names, list) else ()


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_parquet_member(uri: str, member: str, version: str) -> bytes:
    group, row, column = member.split(":", 2)
    with _group_lock:  # threads that need the same row group read it once
        images = _read_row_group(uri, version, int(group), column)
    return images[int(row)].as_py() or b""  # a null is rejected as an empty file


@functools.lru_cache(maxsize=CACHED_ROW_GROUPS)
def _read_row_group(uri: str, version: str, group: int, column: str) -> pa.Array:
    """Encoded images of one row group, binary; cached by `version` too, so that a rewritten table is read again."""
    with objects.open_object(uri) as source, pq.ParquetFile(source, pre_buffer=False) as table:
        images = table.read_row_group(group, columns=[column], use_threads=False)[column].combine_chunks()
    images = images.chunk(0) if isinstance(images, pa.ChunkedArray) else images
    return images.field("bytes") if pa.types.is_struct(images.type) else images


PARQUET_ARCHIVE = ArchiveFormat(extension="parquet", index=_index_parquet, read_member=_read_parquet_member)

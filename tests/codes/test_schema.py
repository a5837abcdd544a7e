"""The shard schema: round trip, types, and refused names."""

import pyarrow as pa
import pytest

from components.codes.schema import CodeLevel, CodeSchema
from components.errors import StorageError


def level(name="top", **changes) -> CodeLevel:
    return CodeLevel(**{"name": name, "height": 4, "width": 4, "codebook_size": 64, **changes})


def test_schema_survives_the_round_trip_through_arrow(codes):
    assert CodeSchema.from_arrow(codes.schema.arrow()) == codes.schema


def test_columns_are_fixed_size_lists_between_the_rows_and_the_error(codes):
    schema = codes.schema.arrow()
    assert schema.names == ["id", "key", "label", "split", "copy", "version", "top", "bottom", "error"]
    assert schema.field("bottom").type.list_size == 24 and schema.field("error").type == pa.float32()
    assert [field.name for field in schema if field.nullable] == ["label"]


@pytest.mark.parametrize(("size", "kind"), [(2, pa.uint16()), (65536, pa.uint16()), (65537, pa.uint32())])
def test_codes_take_two_bytes_when_they_fit(size, kind):
    assert level(codebook_size=size).type == kind


@pytest.mark.parametrize("name", ["id", "key", "label", "split", "copy", "version", "error"])
def test_a_level_cannot_have_the_name_of_a_fixed_column(name):
    with pytest.raises(ValueError, match=f"must not share its name .* got '{name}'"):
        level(name)


def test_levels_must_exist_and_have_different_names():
    for levels in ((), (level(), level())):
        with pytest.raises(ValueError, match="level"):
            CodeSchema(levels=levels, tokenizer_digest="", preprocessing="")
    with pytest.raises(ValueError, match=r"level must be one of \['top'\], got 'side'"):
        CodeSchema(levels=(level(),), tokenizer_digest="", preprocessing="").level("side")


def test_a_schema_of_another_format_is_refused():
    with pytest.raises(StorageError, match="must have format 2, got None"):
        CodeSchema.from_arrow(pa.schema([("id", pa.int64())]))

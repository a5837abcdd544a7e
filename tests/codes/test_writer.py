"""Shards: their content, refused content, and their names."""

import numpy as np
import pyarrow as pa
import pytest

from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import (
    build_shard,
    dictionary_encoded_columns,
    encode_shard,
    row_versions,
    shard_name,
    write_shard,
)
from components.store import parquet


def test_a_shard_holds_the_codes_row_major(codes):
    rows = parquet.from_bytes(encode_shard(codes.shard(0, 50))).to_pylist()
    for number, row in enumerate(rows):
        assert row["bottom"] == codes.maps[1][number].reshape(-1).tolist()
        assert row["error"] == pytest.approx(codes.errors[number]) and row["id"] == number * 2
        assert row["label"] == codes.rows["label"][number].as_py() and row["version"] == codes.versions[number]


def test_the_bytes_of_a_shard_do_not_depend_on_its_chunks(codes):
    whole = codes.shard(0, 50)
    parts = pa.concat_tables([codes.shard(0, 20), codes.shard(20, 50)])
    assert encode_shard(whole) == encode_shard(parts)


@pytest.mark.parametrize("size", [512, 65536, 400_000])
def test_code_columns_are_dictionary_encoded_and_compact(size):
    level = CodeLevel(name="top", height=32, width=32, codebook_size=size)
    schema = CodeSchema(levels=(level,), tokenizer_digest="", preprocessing="")
    n = 1000
    rows = pa.table({"id": np.arange(n), "key": ["k"] * n, "label": [1] * n, "split": ["train"] * n, "copy": [0] * n})
    maps = np.random.default_rng(0).integers(0, size, (n, 32, 32))
    data = encode_shard(build_shard(schema, rows, np.zeros(n, np.int64), [maps], np.zeros(n)))
    assert "top.list.element" in dictionary_encoded_columns(data)
    floor, dictionary = np.ceil(np.log2(size)) / 8 * maps.size, 4 * min(size, maps.size)
    assert len(data) < 1.02 * (floor + dictionary) + 30 * n


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda top, bottom: [top], "there must be 2 code maps, got 1"),
        (lambda top, bottom: [bottom, top], r"code map 'top' must have shape \(50, 2, 3\), got \(50, 4, 6\)"),
        (lambda top, bottom: [top + 8, bottom], r"codes of level 'top' must lie in 0\.\.15, got 8\.\.23"),
        (lambda top, bottom: [top, bottom - 1], r"codes of level 'bottom' must lie in 0\.\.511, got -1"),
        (lambda top, bottom: [top.astype(np.int32), bottom], "code map 'top' must be int64, got int32"),
    ],
)
def test_codes_of_another_tokenizer_are_refused(codes, spoil, message):
    with pytest.raises(ValueError, match=message):
        build_shard(codes.schema, codes.rows, codes.versions, spoil(*codes.maps), codes.errors)


def test_errors_must_be_finite_and_one_per_row(codes):
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        build_shard(codes.schema, codes.rows, codes.versions, codes.maps, codes.errors * np.nan)
    with pytest.raises(ValueError, match=r"errors must have shape \(50,\), got \(49,\)"):
        build_shard(codes.schema, codes.rows, codes.versions, codes.maps, codes.errors[1:])


def test_a_shard_name_depends_only_on_its_request(codes):
    name, versions = shard_name(codes.schema, codes.rows, codes.versions), codes.versions
    assert shard_name(codes.schema, pa.concat_tables([codes.rows.slice(0, 9), codes.rows.slice(9)]), versions) == name
    other = CodeSchema(levels=codes.schema.levels, tokenizer_digest="o" * 64, preprocessing="p" * 64)
    labels = codes.rows.set_column(2, "label", pa.array([0] * 50, pa.int32()))
    names = {
        shard_name(other, codes.rows, versions),
        shard_name(codes.schema, labels, versions),
        shard_name(codes.schema, codes.rows, versions + 1),
        shard_name(codes.schema, codes.rows.slice(1), versions[1:]),
    }
    assert len(names | {name}) == 5


def test_a_row_version_changes_with_the_file_and_not_with_its_uri(codes):
    def versions_with(column, value):
        index = codes.rows.schema.get_field_index(column)
        return row_versions(codes.rows.set_column(index, column, pa.array([value] * 50)))

    moved = [
        versions_with("uri", "elsewhere"),
        versions_with("id", 7),
        versions_with("label", 2),
        versions_with("split", "train"),
    ]
    assert all((versions == codes.versions).all() for versions in moved)
    assert all((versions_with(column, value) != codes.versions).all() for column, value in (("etag", "e"), ("size", 9)))


def test_a_written_shard_describes_its_content(codes, tmp_path):
    shard = write_shard(str(tmp_path), "000001-test", "part-a.parquet", codes.shard(3, 23))
    assert (shard.rows, shard.first_key, shard.last_key) == (20, "k01", "k11")
    assert shard.splits == {"held_out": 4, "train": 16} and shard.size == (tmp_path / shard.path).stat().st_size
    training = [number for number in range(3, 23) if number % 5]
    used = np.unpackbits(np.frombuffer(bytes.fromhex(shard.used["bottom"]), np.uint8))
    assert np.flatnonzero(used).tolist() == sorted(set(codes.maps[1][training].ravel().tolist()))


def test_a_version_is_that_of_the_content_where_it_is_known(codes):
    def version(**columns):
        rows = codes.rows.slice(0, 1)
        for name, value in columns.items():
            index = rows.schema.get_field_index(name)
            rows = rows.set_column(index, rows.schema.field(index), pa.array([value], rows.schema.types[index]))
        return row_versions(rows)[0]

    read = version(content=b"c" * 16)
    assert read == version(content=b"c" * 16, etag="touched", size=7, uri="s3://moved")
    assert len({read, version(content=b"d" * 16), version(), version(etag="touched"), version(key="other")}) == 5

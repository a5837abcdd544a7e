"""Shards: what is written, what is refused, and that a resume ends with the same bytes."""

import json

import numpy as np
import pyarrow as pa
import pytest

from components import parquet, storage
from components.codes.schema import CodeLevel, CodeSchema
from components.codes.writer import (
    ShardRange,
    build_shard,
    commit_codes,
    dictionary_encoded,
    encode_shard,
    find_shards,
    shard_name,
    shard_ranges,
    write_shard,
)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (50, 16), (48, 16), (5, 100)])
def test_ranges_hold_each_row_once(rows, size):
    ranges = shard_ranges(rows, size)
    assert [row for one in ranges for row in range(one.start, one.stop)] == list(range(rows))
    assert [one.index for one in ranges] == list(range(len(ranges)))
    assert all(one.stop - one.start == size for one in ranges[:-1])
    assert shard_name(12) == "part-00000012.parquet"


def test_a_shard_holds_the_codes_row_major(codes):
    rows = parquet.from_bytes(encode_shard(codes.shard(0, 50))).to_pylist()
    for number, row in enumerate(rows):
        assert row["bottom"] == codes.maps[1][number].reshape(-1).tolist()
        assert row["error"] == pytest.approx(codes.errors[number]) and row["id"] == number * 2
        assert row["label"] == codes.rows["label"][number].as_py()


def test_bytes_are_equal_however_the_rows_are_chunked(codes):
    whole = codes.shard(0, 50)
    parts = pa.concat_tables([codes.shard(0, 20), codes.shard(20, 50)])
    assert encode_shard(whole) == encode_shard(parts)


@pytest.mark.parametrize("size", [512, 65536, 400_000])
def test_code_columns_are_packed_by_their_dictionary(size):
    level = CodeLevel(name="top", height=32, width=32, codebook_size=size)
    schema = CodeSchema(levels=(level,), tokenizer_digest="", snapshot_digest="")
    n = 1000
    rows = pa.table({"id": np.arange(n), "key": ["k"] * n, "label": [1] * n, "split": ["train"] * n, "copy": [0] * n})
    maps = np.random.default_rng(0).integers(0, size, (n, 32, 32))
    data = encode_shard(build_shard(schema, rows, [maps], np.zeros(n)))
    assert "top.list.element" in dictionary_encoded(data)
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
        build_shard(codes.schema, codes.rows, spoil(*codes.maps), codes.errors)


def test_errors_that_are_no_numbers_are_refused(codes):
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity"):
        build_shard(codes.schema, codes.rows, codes.maps, codes.errors * np.nan)
    with pytest.raises(ValueError, match=r"errors must have shape \(50,\), got \(49,\)"):
        build_shard(codes.schema, codes.rows, codes.maps, codes.errors[1:])


def test_a_resume_encodes_what_is_missing_and_ends_with_the_same_digest(codes, tmp_path):
    whole = codes.write(tmp_path / "whole")
    ids = np.asarray(codes.rows["id"])
    folder = str(tmp_path / "resumed")
    for number in (0, 2):
        write_shard(folder, number, codes.shard(number * 16, number * 16 + 16))
    (tmp_path / "resumed" / shard_name(1)).write_bytes(b"PAR1 cut")
    found = find_shards(folder, codes.schema, ids, 16)
    assert sorted(found) == [0, 2]
    for one in shard_ranges(50, 16):
        if one.index not in found:
            found[one.index] = write_shard(folder, one.index, codes.shard(one.start, one.stop))
    assert commit_codes(folder, codes.schema, found.values(), rows=50) == whole


def test_shards_of_another_size_or_tokenizer_count_as_missing(codes, tmp_path):
    codes.write(tmp_path, 16)
    ids = np.asarray(codes.rows["id"])
    other = CodeSchema(levels=codes.schema.levels, tokenizer_digest="other", snapshot_digest="s" * 64)
    assert sorted(find_shards(str(tmp_path), codes.schema, ids, 16)) == [0, 1, 2, 3]
    assert find_shards(str(tmp_path), codes.schema, ids, 8) == {}
    assert find_shards(str(tmp_path), other, ids, 16) == {}


def test_the_manifest_lists_shards_and_facts_and_strays_are_removed(codes, tmp_path):
    codes.write(tmp_path, 5)
    digest = codes.write(tmp_path, 16)
    assert storage.faults(str(tmp_path), digest) == []
    assert sorted(storage.sizes(str(tmp_path))) == [storage.MANIFEST, *map(shard_name, range(4))]
    facts = json.loads((tmp_path / storage.MANIFEST).read_text())["facts"]
    assert (facts["rows"], facts["shards"], facts["splits"]) == (50, 4, {"held_out": 10, "train": 40})
    assert [level["name"] for level in facts["levels"]] == ["top", "bottom"]
    assert (facts["tokenizer"], facts["snapshot"]) == ("t" * 64, "s" * 64)


def test_a_dataset_with_a_hole_or_a_double_is_not_committed(codes, tmp_path):
    ranges = shard_ranges(50, 16)
    shards = [write_shard(str(tmp_path), one.index, codes.shard(one.start, one.stop)) for one in ranges]
    for wrong, message in ((shards[1:], "must hold all 50 rows .* got 34"), ([*shards, shards[0]], "committed once")):
        with pytest.raises(ValueError, match=message):
            commit_codes(str(tmp_path), codes.schema, wrong, rows=50)
    assert ranges[-1] == ShardRange(3, 48, 50)
    with pytest.raises(FileNotFoundError):
        storage.read_manifest(str(tmp_path))

"""Every kind of damage to a whole dataset is found and reported."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.codes.dataset import read_dataset
from components.codes.verify import verify_dataset
from components.codes.writer import row_versions, shard_name, write_shard
from components.images.config import PixelConfig
from components.images.snapshot import SNAPSHOT_FILE, open_snapshot, snapshot_to_parquet
from components.store import commits, objects, parquet


@pytest.fixture
def dataset(codes, tmp_path):
    """A dataset whose snapshot is there."""
    data = snapshot_to_parquet(codes.rows, ("a", "b", "c"), PixelConfig(image_size=16), 0)
    commits.save_artifact(str(tmp_path / "snapshot"), {SNAPSHOT_FILE: data}, {})
    replace(codes, snapshot=open_snapshot(str(tmp_path / "snapshot"))).write(tmp_path / "codes")
    return tmp_path / "codes"


def rewrite(dataset, change, **written) -> None:
    """Replace a shard by a changed one and let the manifest agree, as a bug in a writer would."""
    shard = read_dataset(str(dataset)).shards[1]
    path = dataset / shard.path
    table = change(parquet.from_bytes(path.read_bytes()))
    pq.write_table(table, path, **{"compression": "zstd", **written})
    manifest = json.loads((dataset / "manifest.json").read_text())
    line = next(file for file in manifest["files"] if file["path"] == shard.path)
    line |= vars(commits.file_entry(shard.path, path.read_bytes()))
    (dataset / "manifest.json").write_text(json.dumps(manifest))


def column(name: str, make):
    """A change of one column."""
    return lambda table: table.set_column(table.schema.get_field_index(name), table.schema.field(name), make(table))


def test_a_whole_dataset_has_no_faults_and_each_shard_is_reported(dataset):
    told = []
    assert verify_dataset(str(dataset), lambda done, total: told.append((done, total))) == []
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "bytes, the manifest says"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "has SHA-256"),
    ],
)
@pytest.mark.parametrize("file", ["part-*", "tokenizer/model.safetensors", "rejects.parquet"])
def test_damage_to_a_file_is_reported_with_its_path(dataset, file, harm, what):
    path = next(dataset.glob(file))
    harm(path)
    (fault,) = verify_dataset(str(dataset))
    assert fault.path == str(path.relative_to(dataset)) and what in fault.what


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda table: table.slice(1), "has 15 rows, the manifest says 16"),
        (lambda table: table.rename_columns(["ID", *table.column_names[1:]]), "other columns or metadata"),
        (column("error", lambda table: pa.array([np.nan] * 16, pa.float32())), "has NaN or infinite errors"),
        (column("key", lambda table: table["key"].take(pa.array(range(15, -1, -1)))), "keys in order from 'k08'"),
        (column("id", lambda table: pa.array([0] * 16)), "repeats 16 ids, for example 0"),
        (column("id", lambda table: pa.array(range(900, 916))), "16 images of the snapshot are neither in a shard"),
        (column("id", lambda table: pa.array(range(900, 916))), "16 rows are in no snapshot"),
        (column("version", lambda table: pa.array([1] * 16)), "16 rows were encoded from another version"),
    ],
)
def test_wrong_rows_are_reported(dataset, change, what):
    rewrite(dataset, change)
    assert any(what in str(fault) for fault in verify_dataset(str(dataset)))


def test_codes_out_of_range_are_reported(dataset):
    def spoil(table):
        flat = np.array(table["top"].combine_chunks().flatten())
        flat[7] = 16
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=table.schema.field("top").type)

    rewrite(dataset, column("top", spoil))
    assert [fault.what for fault in verify_dataset(str(dataset))] == ["has code 16 in level 'top', codes lie in 0..15"]


def test_codes_that_are_not_packed_are_reported(dataset):
    rewrite(dataset, lambda table: table, compression="snappy", use_dictionary=False)
    said = " ".join(fault.what for fault in verify_dataset(str(dataset)))
    assert "dictionary-encoded, ['bottom.list.element', 'top.list.element'] are not" in said
    assert "must be compressed by zstd, got ['SNAPPY']" in said


def test_a_missing_or_changed_snapshot_is_reported(codes, dataset, tmp_path):
    settings = PixelConfig(image_size=16)
    other = snapshot_to_parquet(codes.rows.slice(1), ("a", "b", "c"), settings, 0)
    commits.save_artifact(str(tmp_path / "snapshot"), {SNAPSHOT_FILE: other}, {})
    (fault,) = verify_dataset(str(dataset))
    assert "its snapshot" in fault.what and "the dataset is of" in fault.what
    objects.delete(str(tmp_path / "snapshot"))
    (fault,) = verify_dataset(str(dataset))
    assert fault.path == "" and "cannot be read" in fault.what


def test_a_shard_that_is_in_the_manifest_twice_repeats_its_ids(codes, dataset):
    first = codes.rows.slice(0, 16)
    twin = write_shard(str(dataset), "part-twin.parquet", codes.shard(0, 16))
    assert shard_name(codes.schema, first, row_versions(first)) != twin.path
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["files"].append(vars(twin))
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    assert [str(fault) for fault in verify_dataset(str(dataset))] == [
        "part-twin.parquet: repeats 16 ids, for example 0"
    ]

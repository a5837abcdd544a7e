"""Every kind of damage to a dataset is detected and reported."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.codes import verify
from components.codes.dataset import read_dataset
from components.codes.verify import verify_dataset
from components.codes.writer import row_versions, shard_name, write_shard
from components.images.config import PixelConfig
from components.images.snapshot import open_snapshot
from components.images.snapshot_writer import save_snapshot
from components.store import commits, objects, parquet
from tests.store.committed_files import newest_manifest


@pytest.fixture
def dataset(codes, tmp_path):
    """Folder of a dataset whose snapshot exists."""
    save_snapshot(str(tmp_path / "snapshot"), codes.rows, ("a", "b", "c"), PixelConfig(image_size=16), 0)
    replace(codes, snapshot=open_snapshot(str(tmp_path / "snapshot"))).write(tmp_path / "codes")
    return tmp_path / "codes"


def rewrite(dataset, change, **written) -> None:
    """Replace a shard by a changed one and update the manifest to match, as a faulty writer would."""
    shard = read_dataset(str(dataset)).shards[1]
    path = dataset / shard.path
    table = change(parquet.from_bytes(path.read_bytes()))
    pq.write_table(table, path, **{"compression": "zstd", **written})
    manifest = json.loads(newest_manifest(dataset).read_text())
    line = next(file for file in manifest["files"] if file["path"] == shard.path)
    line |= vars(commits.file_entry(shard.path, path.read_bytes()))
    newest_manifest(dataset).write_text(json.dumps(manifest))


def change_column(name: str, make):
    """A function of a table that replaces one column by `make(table)`."""
    return lambda table: table.set_column(table.schema.get_field_index(name), table.schema.field(name), make(table))


def test_an_intact_dataset_has_no_faults_and_each_shard_is_reported(dataset):
    reports = []
    assert verify_dataset(str(dataset), lambda done, total: reports.append((done, total))) == []
    assert reports == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "bytes, the manifest says"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "has SHA-256"),
    ],
)
@pytest.mark.parametrize("file", ["*/part-*", "*/tokenizer/model.safetensors", "*/rejects.parquet"])
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
        (change_column("error", lambda table: pa.array([np.nan] * 16, pa.float32())), "has NaN or infinite errors"),
        (
            change_column("key", lambda table: table["key"].take(pa.array(range(15, -1, -1)))),
            "keys in order from 'k08'",
        ),
        (change_column("id", lambda table: pa.array([0] * 16)), "repeats 15 ids, for example 0"),
        (change_column("id", lambda table: pa.array(range(0, 32, 2))), "repeats 16 ids, for example 0"),
        (
            change_column("id", lambda table: pa.array(range(900, 916))),
            "16 images of the snapshot are neither in a shard",
        ),
        (change_column("id", lambda table: pa.array(range(900, 916))), "16 rows are in no snapshot"),
        (change_column("version", lambda table: pa.array([1] * 16)), "16 rows were encoded from another version"),
    ],
)
def test_wrong_rows_are_reported(dataset, change, what):
    rewrite(dataset, change)
    assert any(what in str(fault) for fault in verify_dataset(str(dataset)))


def test_codes_out_of_range_are_reported(dataset):
    def with_one_code_out_of_range(table):
        flat = np.array(table["top"].combine_chunks().flatten())
        flat[7] = 16
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=table.schema.field("top").type)

    rewrite(dataset, change_column("top", with_one_code_out_of_range))
    assert [fault.what for fault in verify_dataset(str(dataset))] == ["has code 16 in level 'top', codes lie in 0..15"]


def test_shards_without_dictionaries_and_zstd_are_reported(dataset):
    rewrite(dataset, lambda table: table, compression="snappy", use_dictionary=False)
    faults = " ".join(fault.what for fault in verify_dataset(str(dataset)))
    assert "dictionary-encoded, ['bottom.list.element', 'top.list.element'] are not" in faults
    assert "must be compressed by zstd, got ['SNAPPY']" in faults


def test_a_missing_or_changed_snapshot_is_reported(codes, dataset, tmp_path):
    save_snapshot(str(tmp_path / "snapshot"), codes.rows.slice(2), ("a", "b", "c"), PixelConfig(image_size=16), 0)
    (fault,) = verify_dataset(str(dataset))
    assert "its snapshot" in fault.what and "the dataset is of" in fault.what
    objects.delete(str(tmp_path / "snapshot"))
    (fault,) = verify_dataset(str(dataset))
    assert fault.path == "" and "cannot be read" in fault.what


def test_stretches_of_the_snapshot_are_compared_with_the_shards_that_overlap_them(codes, dataset, monkeypatch):
    monkeypatch.setattr(verify, "ROWS_PER_COMPARISON", 7)  # shards hold 16 rows, images have two copies
    assert verify_dataset(str(dataset)) == []
    rewrite(dataset, change_column("version", lambda table: pa.array([1] * 16)))
    assert [fault.what for fault in verify_dataset(str(dataset))] == [
        "16 rows were encoded from another version of their image than the snapshot lists"
    ]


def test_a_shard_that_the_manifest_lists_twice_is_reported(codes, dataset):
    first = codes.rows.slice(0, 16)
    twin = write_shard(str(dataset), "000001-test", "part-twin.parquet", codes.shard(0, 16))
    assert shard_name(codes.schema, first, row_versions(first)) != twin.path
    manifest = json.loads(newest_manifest(dataset).read_text())
    manifest["files"].append(vars(twin))
    newest_manifest(dataset).write_text(json.dumps(manifest))
    assert [str(fault) for fault in verify_dataset(str(dataset))] == [f"{twin.path}: repeats 16 ids, for example 0"]

"""A committed dataset: its manifest, refused commits, and the files that a commit keeps and removes."""

import json

import pytest

from components.codes.dataset import read_dataset, tokenizer_digest
from components.codes.writer import write_shard
from components.errors import StorageError
from components.images.rejects import Reject
from components.store import commits, leftovers, parquet
from tests.store.committed_files import newest_manifest, stored_path


def test_the_manifest_lists_counts_and_origins(codes, tmp_path):
    dataset = codes.write(tmp_path)
    manifest = json.loads(newest_manifest(tmp_path).read_text())
    facts = manifest["facts"]
    assert commits.artifact_faults(str(tmp_path), dataset.digest) == []
    assert (facts["rows"], facts["shards"], facts["splits"]) == (50, 4, {"held_out": 10, "train": 40})
    assert (facts["tokenizer"], facts["snapshot"], facts["version"]) == ("t" * 64, "s" * 64, 1)
    assert (facts["tokenizer_model"], facts["tokenizer_run"]) == ("models:/pets-tokenizer/3", "run")
    shards = [file for file in manifest["files"] if "rows" in file]
    assert sum(file["rows"] for file in shards) == 50 and all(len(file["sha256"]) == 64 for file in shards)
    assert stored_path(tmp_path, "tokenizer/model.safetensors").read_bytes() == b"content of model.safetensors"


def test_a_dataset_is_read_back_as_committed(codes, tmp_path):
    dataset = codes.write(tmp_path)
    assert read_dataset(str(tmp_path)) == dataset and dataset.schema == codes.schema
    assert [shard.first_key for shard in dataset.shards] == ["k00", "k08", "k16", "k24"]
    train = codes.maps[1][[number % 5 != 0 for number in range(50)]]
    assert dataset.usage()["bottom"] == len(set(train.ravel().tolist())) / 512
    assert dataset.bytes_per_image == sum(path.stat().st_size for path in tmp_path.glob("*/part-*")) / 50


def test_a_sweep_keeps_the_files_of_the_previous_version_and_removes_older_ones(codes, tmp_path):
    first = codes.write(tmp_path, 5)
    assert codes.write(tmp_path, 5, previous=first).facts.version == 1  # nothing changed
    second = codes.write(tmp_path, 16, previous=first)
    assert second.facts.version == 2 and commits.artifact_faults(str(tmp_path), second.digest) == []
    leftovers.sweep(str(tmp_path), "000001-test", older_than=0)
    assert all((tmp_path / shard.path).exists() for shard in first.shards)
    third = codes.write(tmp_path, 20, previous=second)
    leftovers.sweep(str(tmp_path), "000001-test", older_than=0)
    on_disk = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/part-*")}
    assert on_disk == {shard.path for shard in (*second.shards, *third.shards)}


def test_a_dataset_with_missing_or_repeated_rows_is_not_committed(codes, tmp_path):
    shards = [
        write_shard(str(tmp_path), "000001-test", f"part-{start}.parquet", codes.shard(start, start + 25))
        for start in (0, 25)
    ]
    rejects = [Reject("k", "u", "r", "e")] * 25
    for wrong, left_out, message in (
        (shards[1:], [], "must make up the 50 rows of the snapshot, got 25 and 0"),
        ([shards[0], shards[0]], [], "committed once"),
        (shards, rejects, "got 50 and 25"),
    ):
        with pytest.raises(ValueError, match=message):
            codes.commit(tmp_path, wrong, left_out)
    with pytest.raises(FileNotFoundError):
        read_dataset(str(tmp_path))


def test_rejects_are_part_of_the_dataset(codes, tmp_path):
    shard = write_shard(str(tmp_path), "000001-test", "part-0.parquet", codes.shard(0, 49))
    reject = Reject("k24", "u", "truncated", "cut")
    codes.commit(tmp_path, [shard], [reject])
    rows = parquet.from_bytes(stored_path(tmp_path, "rejects.parquet").read_bytes()).to_pylist()
    assert [tuple(row.values()) for row in rows] == [tuple(reject)]
    assert read_dataset(str(tmp_path)).facts.rejects == 1


def test_other_artifacts_are_refused(tmp_path):
    commits.save_artifact(str(tmp_path), {"a": b"b"}, {"rows": 1})
    with pytest.raises(StorageError, match="must hold a code dataset of this version: encode again"):
        read_dataset(str(tmp_path))


def test_a_tokenizer_digest_equals_the_digest_of_its_artifact(tmp_path):
    files = {"config.json": b"1", "model.safetensors": b"2"}
    digest, folder = commits.save_artifact(str(tmp_path), files, {}), commits.local_copy(str(tmp_path))
    assert digest == tokenizer_digest(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"must hold config.json and model.safetensors, .* has no \['config.json'\]"):
        tokenizer_digest(folder)

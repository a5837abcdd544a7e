"""Reading codes for training, compared with the arrays that were written."""

import math
import resource
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from components.codes.reader import code_frequencies, codebook_usage, read_codes, unigram_entropy
from components.errors import StorageError
from components.store import commits
from tests.store.committed_files import newest_manifest


@pytest.fixture
def tables(codes, tmp_path):
    codes.write(tmp_path / "codes")
    return tuple(read_codes(str(tmp_path / "codes"), split, tmp_path / "cache") for split in ("train", "held_out"))


def test_a_split_is_read_completely_and_in_order(codes, tables):
    for table, chosen in zip(tables, (np.arange(50) % 5 != 0, np.arange(50) % 5 == 0), strict=True):
        assert table.ids.tolist() == (np.flatnonzero(chosen) * 2).tolist() and len(table) == chosen.sum()
        assert all((got == maps[chosen]).all() for got, maps in zip(table.maps, codes.maps, strict=True))
        labels = [-1 if label is None else label for label in codes.rows["label"].to_pylist()]
        assert table.labels.tolist() == np.array(labels)[chosen].tolist()
        assert table.maps[0].dtype == np.uint16 and isinstance(table.maps[0], np.memmap)


def test_a_sample_has_originals_of_every_class(tables):
    for table in tables:
        originals = np.flatnonzero(table.copies == 0)
        assert sorted(table.sample(1000).tolist()) == originals.tolist() and len(originals) < len(table)
        assert set(table.labels[table.sample(6)]) == set(table.labels[originals])


def test_a_batch_is_int64_in_the_requested_order(tables):
    train = tables[0]
    batch = train.batch(np.array([5, 0, 5]))
    assert [codes.shape for codes in batch.maps] == [(3, 2, 3), (3, 4, 6)]
    assert {tensor.dtype for tensor in (*batch.maps, batch.labels)} == {torch.int64}
    assert (batch.maps[1].numpy() == train.maps[1][[5, 0, 5]]).all()
    assert batch.labels.tolist() == train.labels[[5, 0, 5]].tolist()


def test_only_files_of_the_manifest_are_opened(codes, tables, tmp_path):
    (tmp_path / "codes" / "part-99.parquet").write_bytes(b"half written")
    assert len(read_codes(str(tmp_path / "codes"), "train", tmp_path / "other")) == len(tables[0])
    newest_manifest(tmp_path / "codes").unlink()
    with pytest.raises(FileNotFoundError):
        read_codes(str(tmp_path / "codes"), "train", tmp_path / "cache")


def test_codes_are_read_from_an_object_store(codes, tables, tmp_path):
    folder = f"memory://{uuid.uuid4().hex}"
    codes.write(folder)
    table = read_codes(folder, "train", tmp_path / "other")
    assert all((got == expected).all() for got, expected in zip(table.maps, tables[0].maps, strict=True))


def test_the_cache_is_reused_and_a_new_dataset_gets_a_new_one(codes, tables, tmp_path):
    for path in (tmp_path / "codes").glob("*/part-*"):
        path.unlink()
    assert (read_codes(str(tmp_path / "codes"), "train", tmp_path / "cache").maps[0] == tables[0].maps[0]).all()
    codes.maps[0][1] = (codes.maps[0][1] + 1) % 16
    codes.write(tmp_path / "codes")
    changed = read_codes(str(tmp_path / "codes"), "train", tmp_path / "cache")
    assert (changed.maps[0][0] == codes.maps[0][1]).all() and (changed.maps[0][0] != tables[0].maps[0][0]).any()


def test_a_damaged_shard_is_detected_and_leaves_no_cache(codes, tmp_path):
    codes.write(tmp_path / "codes")
    path = next((tmp_path / "codes").glob("*/part-*.parquet"))
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(StorageError, match=r"part-.*\.parquet .* is not the file"):
        read_codes(str(tmp_path / "codes"), "train", tmp_path / "cache")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock", ".making"}


def test_an_unknown_split_and_an_unusable_cache_folder_are_refused(codes, tmp_path):
    codes.write(tmp_path / "codes")
    with pytest.raises(ValueError, match=r"split must be one of \['held_out', 'train'\], got 'test'"):
        read_codes(str(tmp_path / "codes"), "test", tmp_path / "cache")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"the cache .*file must be writable and have room, .* set VQVAE2_CACHE"):
        read_codes(str(tmp_path / "codes"), "train", tmp_path / "file")


def test_a_full_disk_is_an_error_and_leaves_no_files(codes, tmp_path):
    codes.write(tmp_path / "codes")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match="Free some space"):
            read_codes(str(tmp_path / "codes"), "train", tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock", ".making"}


def test_simultaneous_workers_unpack_once(codes, tmp_path, monkeypatch):
    codes.write(tmp_path / "codes")
    reads = []
    read = commits.read_verified
    monkeypatch.setattr(commits, "read_verified", lambda *file: reads.append(file) or read(*file))
    with ThreadPoolExecutor(4) as pool:
        tables = [pool.submit(read_codes, str(tmp_path / "codes"), "train", tmp_path / "cache") for _ in range(4)]
    assert [len(table.result()) for table in tables] == [40] * 4 and len(reads) == 4  # one per shard


def test_statistics_match_direct_counting(tables):
    train, held_out = tables
    train_counts, held_out_counts = (Counter(table.maps[0].ravel().tolist()) for table in tables)
    total = sum(train_counts.values())
    nats = sum(-math.log((train_counts[code] + 1) / (total + 16)) * count for code, count in held_out_counts.items())
    every = np.arange(len(held_out))
    assert unigram_entropy(train, held_out, "top", every) == pytest.approx(nats / sum(held_out_counts.values()))
    codes = held_out.maps[0][[3, 1]].ravel().tolist()
    few = -sum(math.log((train_counts[code] + 1) / (total + 16)) for code in codes) / len(codes)
    assert unigram_entropy(train, held_out, "top", np.array([3, 1])) == pytest.approx(few)
    assert codebook_usage(held_out, "bottom") == len(np.unique(held_out.maps[1])) / 512 < 1
    assert code_frequencies(train, "top").sum() == train.maps[0].size
    with pytest.raises(ValueError, match="level must be one of"):
        codebook_usage(train, "middle")

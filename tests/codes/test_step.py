"""Encode jobs, on Ray and in this process: their codes, the work after images changed, the loss of an encode worker."""

import functools
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.codes import worker_pool
from components.codes.config import CodesConfig
from components.codes.dataset import read_dataset
from components.codes.verify import verify_dataset
from components.codes.worker_pool import WorkerPool
from components.config import StepResources
from components.errors import LeaseHeld, StorageError
from components.images.tensors import to_images
from components.progress import Progress
from components.store import commits, parquet
from components.store.lease import acquire_lease, keep_alive, lease_folder
from components.tokenizer.stored import load_tokenizer
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.codes.jobs import (
    WAVES,
    call_when,
    commit_images,
    dataset_rows,
    encode_workers,
    kill_encode_worker,
    run_encode_job,
    shard_write_times,
)
from tests.store.committed_files import stored_path


@pytest.fixture
def pictures(tmp_path) -> Path:
    write_pictures(tmp_path / "pictures", range(150))
    return tmp_path / "pictures"


@pytest.fixture
def make_dataset(fitted, pictures, tmp_path):
    """make_dataset(name): encode the current content of `pictures` into the folder `name`; returns the folder."""

    def make(name: str = "codes", tokenizer=fitted, *, cluster=None, **more) -> str:
        snapshot = commit_images(str(pictures), str(tmp_path / f"snapshot-{len(list(tmp_path.iterdir()))}"))
        run_encode_job(str(tmp_path / name), snapshot, tokenizer, cluster, **more)
        return str(tmp_path / name)

    return make


@pytest.fixture
def make_on_ray(make_dataset, local_ray):
    """make_on_ray(name): the same on Ray."""
    return functools.partial(make_dataset, cluster=local_ray)


@pytest.mark.ray
def test_the_codes_equal_those_of_the_tokenizer(make_on_ray, pictures, fitted):
    rows, model = dataset_rows(make_on_ray()), load_tokenizer(fitted.folder)
    assert len(rows) == 150 and len({row["id"] for row in rows}) == 150
    codes = []
    for row in rows[::10]:
        with Image.open(pictures / row["key"]) as image:
            pixels = np.asarray(image.resize((16, 16), Image.Resampling.LANCZOS, box=(2, 0, 22, 20)))
        maps = model.encode(to_images(torch.from_numpy(pixels[None, :, :, None].copy())))
        codes.append([level.flatten().tolist() for level in maps] == [row["top"], row["bottom"]])
    assert np.mean(codes) > 0.9  # vectors midway between two codes may be rounded to either
    assert len({code for row in rows for code in row["bottom"]}) > 4 and min(row["error"] for row in rows) > 0


@pytest.mark.ray
def test_decoding_in_tasks_gives_the_same_dataset(make_on_ray):
    here, apart = make_on_ray("here"), make_on_ray("apart", resources=StepResources(workers=1, readers=2))
    assert read_dataset(here).digest == read_dataset(apart).digest


def test_only_new_and_changed_images_are_encoded_and_deleted_ones_are_removed(make_dataset, pictures):
    folder = make_dataset()
    before, times_before = dataset_rows(folder), shard_write_times(folder)
    write_pictures(pictures, range(150, 170))
    write_pictures(pictures, range(3), seed=1)
    (pictures / "0" / "0030.png").unlink()
    make_dataset()
    after, fresh = dataset_rows(folder), make_dataset("fresh")
    assert after == dataset_rows(fresh) and len(after) == 169 and verify_dataset(folder) == []
    assert sum(row not in after for row in before) == 4  # three changed, one gone
    dataset = read_dataset(folder)
    written = [shard for shard in dataset.shards if shard.path not in times_before]
    assert dataset.facts.version == 2
    assert sum(shard.rows for shard in written) < 23 + 4 * 8  # new and changed images, and the rest of their shards


def test_a_job_on_unchanged_images_changes_nothing(make_dataset):
    first = read_dataset(make_dataset())
    written = shard_write_times(first.folder)
    second = read_dataset(make_dataset())
    assert (second.digest, second.facts.version, shard_write_times(first.folder)) == (first.digest, 1, written)


def test_another_tokenizer_gives_other_codes_for_the_same_rows(make_dataset, tmp_path):
    (tmp_path / "other").mkdir()
    other = tokenizer_with_seed(tmp_path / "other", 1)
    first, second = make_dataset("one"), make_dataset("two", tokenizer=other)
    assert [row["key"] for row in dataset_rows(first)] == [row["key"] for row in dataset_rows(second)]
    assert dataset_rows(first) != dataset_rows(second) and read_dataset(second).facts.tokenizer == other.digest


def test_shards_of_another_tokenizer_are_not_reused(make_dataset, tmp_path):
    (tmp_path / "other").mkdir()
    other = tokenizer_with_seed(tmp_path / "other", 1)
    make_dataset("one")
    assert dataset_rows(make_dataset("one", tokenizer=other)) == dataset_rows(make_dataset("two", tokenizer=other))


@pytest.mark.ray
def test_unusable_images_are_rejected(make_on_ray, pictures, tmp_path):
    (pictures / "0" / "bad.png").write_bytes(b"nonsense")
    (pictures / "1" / "gone.png").symlink_to(tmp_path / "nowhere")
    folder = make_on_ray(max_rejects=0.02)
    rejects = parquet.from_bytes(stored_path(folder, "rejects.parquet").read_bytes()).to_pylist()
    assert {row["key"]: row["reason"] for row in rejects} == {"0/bad.png": "not_an_image", "1/gone.png": "missing"}
    assert verify_dataset(folder) == [] and len(dataset_rows(folder)) == 150


@pytest.mark.ray
def test_an_image_that_changed_since_the_snapshot_fails_the_job(local_ray, fitted, pictures, tmp_path):
    snapshot = commit_images(str(pictures), str(tmp_path / "snapshot"))
    (pictures / "0" / "0000.png").write_bytes(b"another size")
    with pytest.raises(StorageError, match=r"0000\.png changed since the snapshot listed it: run again"):
        run_encode_job(str(tmp_path / "codes"), snapshot, fitted, local_ray)
    assert not (tmp_path / "codes" / "manifests").exists()


def test_a_second_job_reports_the_holder_of_the_lease(fitted, pictures, tmp_path):
    snapshot = commit_images(str(pictures), str(tmp_path / "snapshot"))
    with (
        keep_alive(acquire_lease(lease_folder(str(tmp_path / "codes")), wait_seconds=0, report=print)) as lease,
        pytest.raises(LeaseHeld, match=rf"is held by {re.escape(lease.holder)} since {lease.since}"),
    ):
        run_encode_job(str(tmp_path / "codes"), snapshot, fitted, None)


@pytest.mark.ray
def test_a_job_with_a_killed_encode_worker_makes_the_dataset_of_one_process(make_dataset, make_on_ray, tmp_path):
    whole = make_dataset("whole", config=WAVES)
    watcher = call_when(lambda: len(shard_write_times(tmp_path / "killed")) >= 4, kill_encode_worker)
    assert read_dataset(make_on_ray("killed", config=WAVES)).digest == read_dataset(whole).digest
    watcher.join()
    names = [sorted(Path(path).name for path in shard_write_times(each)) for each in (tmp_path / "killed", whole)]
    assert names[0] == names[1]
    assert verify_dataset(whole) == [] and verify_dataset(str(tmp_path / "killed")) == []


@pytest.mark.ray
def test_one_pool_of_encode_workers_serves_all_waves(make_on_ray, monkeypatch):
    started = []
    start = WorkerPool._start
    monkeypatch.setattr(WorkerPool, "_start", lambda pool: started.append(start(pool)) or started[-1])
    folder = make_on_ray(config=replace(WAVES, rows_per_wave=16))  # ten waves
    assert len(started) == 2 and len(dataset_rows(folder)) == 150
    assert encode_workers() == []


@pytest.mark.ray
def test_an_interrupted_job_leaves_no_encode_worker(make_on_ray, tmp_path):
    class Interrupted(Progress):
        def update(self, job: str, *, done: int, **state) -> None:
            if done:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_on_ray(progress=Interrupted())
    assert encode_workers() == [] and commits.head_number(str(tmp_path / "codes")) == 0


@pytest.mark.ray
@pytest.mark.parametrize("dies_in", ["load", "make_shard"])
def test_workers_that_keep_dying_fail_the_job(make_on_ray, monkeypatch, dies_in):
    class Dying:
        def __init__(self, settings) -> None:
            pass

        def load(self) -> None:
            if dies_in == "load":
                os._exit(1)

        def make_shard(self, request) -> None:
            os._exit(1)

    monkeypatch.setattr(worker_pool, "EncodeWorker", Dying)
    monkeypatch.setattr(worker_pool, "MAX_LOSSES", 2)
    with pytest.raises(RuntimeError, match="workers were lost 2 times with the same shard or before"):
        make_on_ray(resources=StepResources(workers=1, readers=0))


@pytest.mark.ray
def test_an_unreadable_tokenizer_raises_the_error_of_its_loading(make_on_ray, tmp_path):
    (tmp_path / "other").mkdir()
    other = tokenizer_with_seed(tmp_path / "other", 1)
    weights = other.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"model\.safetensors must be a safetensors file, but it cannot be read"):
        make_on_ray("broken", tokenizer=other)


def test_only_damaged_shards_are_encoded_again(make_dataset, tmp_path):
    folder = make_dataset()
    whole, written = read_dataset(folder), shard_write_times(folder)
    paths = [shard.path for shard in whole.shards]
    (Path(folder) / paths[1]).unlink()
    (Path(folder) / paths[3]).write_bytes(b"x" * (Path(folder) / paths[3]).stat().st_size)
    wrong = frozenset(fault.path for fault in verify_dataset(folder))
    assert wrong == {paths[1], paths[3]}
    make_dataset(distrusted=wrong)
    assert verify_dataset(folder) == [] and read_dataset(folder).digest == whole.digest
    made_again = {path for path in shard_write_times(folder) if path not in written}
    assert {commits.name_of(path) for path in made_again} == {commits.name_of(path) for path in wrong}


def test_another_precision_and_batch_size_give_nearly_the_same_codes(make_dataset):
    plain = dataset_rows(make_dataset("plain"))
    coarse = dataset_rows(
        make_dataset(
            "coarse", config=CodesConfig(rows_per_shard=64, rows_per_wave=64, batch_size=7, precision="bfloat16")
        )
    )
    agreement = np.mean([exact["bottom"] == near["bottom"] for exact, near in zip(plain, coarse, strict=True)])
    assert [row["id"] for row in plain] == [row["id"] for row in coarse] and agreement > 0.5


def test_a_snapshot_of_other_sizes_is_refused(fitted, pictures, tmp_path):
    snapshot = commit_images(str(pictures), str(tmp_path / "snapshot"), image_size=8)
    with pytest.raises(ValueError, match=r"must have the size and channels .* \(16, 1\), .* has \(8, 1\)"):
        run_encode_job(str(tmp_path / "codes"), snapshot, fitted, None)
    shutil.rmtree(tmp_path / "snapshot")

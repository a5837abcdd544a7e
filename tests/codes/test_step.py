"""Encode jobs on Ray: their codes, what a change of the images costs, what the death of an encoder costs."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.cluster.step import Cluster
from components.codes.config import CodesConfig
from components.codes.dataset import LEASE_FOLDER, read_dataset
from components.codes.verify import verify_dataset
from components.config import StepResources
from components.errors import LeaseHeld, StorageError, TooManyRejects
from components.images.tensors import to_images
from components.store import parquet
from components.store.lease import acquire_lease, keep_alive
from components.tokenizer.stored import load_tokenizer
from tests.codes.conftest import tokenizer_with_seed, write_pictures
from tests.codes.jobs import WAVES, job, kill_an_encoder, parts, rows_of, snapshot_of, when

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster():
    import ray

    yield Cluster(local_cpus=4)
    ray.shutdown()


@pytest.fixture
def pictures(tmp_path) -> Path:
    write_pictures(tmp_path / "pictures", range(150))
    return tmp_path / "pictures"


@pytest.fixture
def made(cluster, fitted, pictures, tmp_path):
    """made(name): the dataset of what `pictures` holds now, in a folder of that name."""

    def make(name: str = "codes", tokenizer=fitted, **more) -> str:
        snapshot = snapshot_of(str(pictures), str(tmp_path / f"snapshot-{len(list(tmp_path.iterdir()))}"))
        job(str(tmp_path / name), snapshot, tokenizer, cluster, **more)
        return str(tmp_path / name)

    return make


def test_the_codes_are_the_tokenizers_own(made, pictures, fitted):
    rows, model = rows_of(made()), load_tokenizer(fitted.folder)
    assert len(rows) == 150 and len({row["id"] for row in rows}) == 150
    codes = []
    for row in rows[::10]:
        with Image.open(pictures / row["key"]) as image:
            pixels = np.asarray(image.resize((16, 16), Image.Resampling.LANCZOS, box=(2, 0, 22, 20)))
        maps = model.encode(to_images(torch.from_numpy(pixels[None, :, :, None].copy())))
        codes.append([level.flatten().tolist() for level in maps] == [row["top"], row["bottom"]])
    assert np.mean(codes) > 0.9  # vectors midway between two codes may be rounded to either
    assert len({code for row in rows for code in row["bottom"]}) > 4 and min(row["error"] for row in rows) > 0


def test_decoding_in_tasks_gives_the_same_dataset(made):
    here, apart = made("here"), made("apart", resources=StepResources(workers=1, readers=2))
    assert read_dataset(here).digest == read_dataset(apart).digest


def test_a_job_without_a_cluster_makes_the_same_dataset(made, pictures, fitted, tmp_path):
    with_ray = made("with_ray", config=WAVES)
    snapshot = snapshot_of(str(pictures), str(tmp_path / "snapshot"))
    output = job(str(tmp_path / "without"), snapshot, fitted, None, WAVES)
    assert read_dataset(with_ray).digest == output.digest and verify_dataset(str(tmp_path / "without")) == []
    assert parts(with_ray).keys() == parts(tmp_path / "without").keys()


def test_only_new_and_changed_images_are_encoded_and_deleted_ones_disappear(made, pictures):
    folder = made()
    before, kept = rows_of(folder), parts(folder)
    write_pictures(pictures, range(150, 170))
    write_pictures(pictures, range(3), seed=1)
    (pictures / "0" / "0030.png").unlink()
    made()
    after, fresh = rows_of(folder), made("fresh")
    assert after == rows_of(fresh) and len(after) == 169 and verify_dataset(folder) == []
    assert sum(row not in after for row in before) == 4  # three changed, one gone
    dataset = read_dataset(folder)
    written = [shard for shard in dataset.shards if shard.path not in kept]
    assert dataset.facts.version == 2 and sum(shard.rows for shard in written) < 23 + 4 * 8  # new, changed, and their shards


def test_a_job_with_nothing_to_do_leaves_everything_as_it_is(made):
    first = read_dataset(made())
    written = parts(first.folder)
    second = read_dataset(made())
    assert (second.digest, second.version, parts(first.folder)) == (first.digest, 1, written)


def test_another_tokenizer_gives_other_codes_of_the_same_rows(made, tmp_path):
    (tmp_path / "other").mkdir()
    other = tokenizer_with_seed(tmp_path / "other", 1)
    first, second = made("one"), made("two", tokenizer=other)
    assert [row["key"] for row in rows_of(first)] == [row["key"] for row in rows_of(second)]
    assert rows_of(first) != rows_of(second) and read_dataset(second).facts.tokenizer == other.digest


def test_shards_of_another_tokenizer_are_not_used(made, tmp_path):
    (tmp_path / "other").mkdir()
    other = tokenizer_with_seed(tmp_path / "other", 1)
    made("one")
    assert rows_of(made("one", tokenizer=other)) == rows_of(made("two", tokenizer=other))


def test_unusable_images_are_rejects_and_too_many_of_them_fail_the_job(made, pictures, tmp_path):
    (pictures / "0" / "bad.png").write_bytes(b"nonsense")
    (pictures / "1" / "gone.png").symlink_to(tmp_path / "nowhere")
    folder = made(max_rejects=0.02)
    rejects = parquet.from_bytes((Path(folder) / "rejects.parquet").read_bytes()).to_pylist()
    assert {row["key"]: row["reason"] for row in rejects} == {"0/bad.png": "not_an_image", "1/gone.png": "missing"}
    assert verify_dataset(folder) == [] and len(rows_of(folder)) == 150
    with pytest.raises(TooManyRejects, match=r"at most 1\.00% .* got 2 of 152(.|\n)*not_an_image"):
        made("other", max_rejects=0.01)


def test_an_image_that_changed_since_the_snapshot_fails_the_job(cluster, fitted, pictures, tmp_path):
    snapshot = snapshot_of(str(pictures), str(tmp_path / "snapshot"))
    (pictures / "0" / "0000.png").write_bytes(b"another size")
    with pytest.raises(StorageError, match=r"0000\.png changed since the snapshot listed it: run again"):
        job(str(tmp_path / "codes"), snapshot, fitted, cluster)
    assert not (tmp_path / "codes" / "manifest.json").exists()


def test_a_second_job_learns_who_holds_the_lease(cluster, fitted, pictures, tmp_path):
    snapshot = snapshot_of(str(pictures), str(tmp_path / "snapshot"))
    with (
        keep_alive(acquire_lease(str(tmp_path / "codes" / LEASE_FOLDER), wait_seconds=0, report=print)) as lease,
        pytest.raises(LeaseHeld, match=rf"is held by {re.escape(lease.holder)} since {lease.since}"),
    ):
        job(str(tmp_path / "codes"), snapshot, fitted, cluster)


def test_a_killed_encoder_costs_only_its_shards(made, tmp_path):
    whole = read_dataset(made("whole", config=WAVES)).digest
    watcher = when(lambda: len(parts(tmp_path / "killed")) >= 4, kill_an_encoder)
    assert read_dataset(made("killed", config=WAVES)).digest == whole
    watcher.join()
    assert verify_dataset(str(tmp_path / "killed")) == []


def test_an_encoder_that_cannot_load_its_tokenizer_raises_its_own_error(made, tmp_path):
    (tmp_path / "other").mkdir()
    other = tokenizer_with_seed(tmp_path / "other", 1)
    weights = other.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"model\.safetensors must be a safetensors file, but it cannot be read"):
        made("broken", tokenizer=other)


def test_only_damaged_shards_are_made_again(made, tmp_path):
    folder = made()
    whole, written = read_dataset(folder), parts(folder)
    paths = [shard.path for shard in whole.shards]
    (Path(folder) / paths[1]).unlink()
    (Path(folder) / paths[3]).write_bytes(b"x" * (Path(folder) / paths[3]).stat().st_size)
    wrong = frozenset(fault.path for fault in verify_dataset(folder))
    assert wrong == {paths[1], paths[3]}
    made(distrusted=wrong)
    assert verify_dataset(folder) == [] and read_dataset(folder).digest == whole.digest
    assert {path for path, when in parts(folder).items() if written.get(path) != when} == wrong


def test_precision_and_batches_of_another_size_are_as_good(made):
    plain = rows_of(made("plain"))
    coarse = rows_of(
        made("coarse", config=CodesConfig(rows_per_shard=64, rows_per_wave=64, batch_size=7, precision="bfloat16"))
    )
    same = np.mean([one["bottom"] == other["bottom"] for one, other in zip(plain, coarse, strict=True)])
    assert [row["id"] for row in plain] == [row["id"] for row in coarse] and same > 0.5


def test_a_snapshot_of_other_sizes_is_refused(cluster, fitted, pictures, tmp_path):
    snapshot = snapshot_of(str(pictures), str(tmp_path / "snapshot"), image_size=8)
    with pytest.raises(ValueError, match=r"must have the size and channels .* \(16, 1\), .* has \(8, 1\)"):
        job(str(tmp_path / "codes"), snapshot, fitted, cluster)
    shutil.rmtree(tmp_path / "snapshot")

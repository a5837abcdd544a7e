"""Encode jobs without a cluster: rejects, resume, the lease, and datasets of an earlier version of the project."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from components.codes.config import CodesConfig
from components.codes.dataset import TokenizerFiles, read_dataset, tokenizer_digest
from components.codes.facts import CodesFacts
from components.codes.plan import EncodeRequest
from components.codes.reader import read_codes
from components.codes.shard_encoder import ShardEncoder
from components.codes.verify import verify_dataset
from components.config import StepResources
from components.errors import LeaseLost, StorageError, TooManyRejects
from components.progress import Progress
from components.store import parquet
from tests.codes.conftest import write_pictures
from tests.codes.jobs import SMALL, WAVES, commit_images, dataset_rows, run_encode_job, shard_write_times
from tests.store.committed_files import newest_manifest, stored_path

FORMAT_1_TOKENIZER = Path(__file__).parents[1] / "store" / "format_1" / "tokenizer"


@pytest.fixture
def pictures(tmp_path) -> Path:
    write_pictures(tmp_path / "pictures", range(100))
    return tmp_path / "pictures"


@pytest.fixture
def encode(fitted, pictures, tmp_path):
    """encode(name): run a job on the current content of `pictures` into the folder `name`."""

    def run(name: str = "codes", tokenizer=fitted, **more):
        snapshot = commit_images(str(pictures), str(tmp_path / f"snapshot-{len(list(tmp_path.iterdir()))}"))
        return run_encode_job(str(tmp_path / name), snapshot, tokenizer, None, **more)

    return run


@pytest.fixture
def made_shards(monkeypatch):
    """Names of the shards that are made, and the keys that are decoded; after `stop_after` shards encoding fails."""
    make = ShardEncoder.make_shard

    class ShardNames(list):
        stop_after = 1000
        keys: list[str]

    names = ShardNames()
    names.keys = []

    def make_shard(encoder, request, *more):
        if len(names) >= names.stop_after:
            raise RuntimeError("the process is stopped here")
        names.append(request.name)
        names.keys += request.rows["key"].to_pylist() if isinstance(request, EncodeRequest) else []
        return make(encoder, request, *more)

    monkeypatch.setattr(ShardEncoder, "make_shard", make_shard)
    return names


def test_the_facts_match_the_dataset(encode, tmp_path):
    output = encode()
    dataset = read_dataset(str(tmp_path / "codes"))
    facts = CodesFacts.read(output.facts.record())
    assert verify_dataset(dataset.folder) == [] and output.digest == dataset.digest
    assert (facts.rows, facts.shards, facts.rejects, facts.version) == (100, 13, 0, 1)
    assert facts.train_rows + facts.held_out_rows == 100 and facts.bytes == sum(s.size for s in dataset.shards)
    assert (facts.classes, facts.dimensions) == (0, 16 * 16) and facts.usage == dataset.usage()
    assert (dataset.facts.image_size, dataset.facts.channels) == (16, 1)


def test_unusable_images_are_rejected_and_too_many_fail_the_job(encode, pictures, tmp_path):
    (pictures / "0" / "bad.png").write_bytes(b"nonsense")
    (pictures / "1" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert encode(max_rejects=0.02).facts.rejects == 2
    rejects = parquet.from_bytes(stored_path(tmp_path / "codes", "rejects.parquet").read_bytes()).to_pylist()
    assert {row["key"]: row["reason"] for row in rejects} == {"0/bad.png": "not_an_image", "1/gone.png": "missing"}
    assert verify_dataset(str(tmp_path / "codes")) == [] and len(dataset_rows(str(tmp_path / "codes"))) == 100
    with pytest.raises(TooManyRejects, match=r"at most 1\.00% .* got 2 of 102(.|\n)*not_an_image"):
        encode("other", max_rejects=0.01)
    assert not (tmp_path / "other" / "manifests").exists()


def test_a_shard_without_any_usable_image_is_not_written(encode, pictures, tmp_path):
    for path in sorted((pictures / "0").iterdir())[:8]:
        path.write_bytes(b"nonsense")
    facts = encode(max_rejects=0.1).facts
    assert (facts.shards, facts.rows, facts.rejects) == (12, 92, 8) and verify_dataset(str(tmp_path / "codes")) == []


@pytest.mark.parametrize(("config", "in_work"), [(SMALL, "notes"), (WAVES, "waves")])
def test_a_stopped_job_resumes_with_the_missing_shards(encode, made_shards, tmp_path, config, in_work):
    whole = encode("whole", config=config).digest
    made_shards.clear()
    made_shards.stop_after = 9  # 8 shards per wave in WAVES: its second wave has begun
    with pytest.raises(RuntimeError, match="stopped here"):
        encode("stopped", config=config)
    written = shard_write_times(tmp_path / "stopped")
    assert len(written) == 9 and any((tmp_path / "stopped" / ".work").glob(f"*/{in_work}/*"))
    made_shards.clear()
    assert encode("stopped", config=config).digest == whole and len(made_shards) == 13 - 9
    assert {name: shard_write_times(tmp_path / "stopped")[name] for name in written} == written
    assert list((tmp_path / "stopped" / ".work").iterdir()) == []


def test_what_was_encoded_stays_encoded_when_the_listing_changes(fitted, made_shards, pictures, tmp_path):
    """Stopped at 31 of 50 shards; then one image is added that sorts first, one removed, changed and relabelled."""
    (pictures / "0" / "0003.png").write_bytes(b"nonsense")

    def encode(name: str, relabelled: str = "") -> str:
        keys = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
        lines = [f"{key},{int(key == relabelled)}" for key in keys]
        (tmp_path / "labels.csv").write_text("\n".join(["key,label", *lines, "none,1"]))
        labels = {"labels": str(tmp_path / "labels.csv")}
        snapshot = commit_images(str(pictures), str(tmp_path / f"snapshot-{len(list(tmp_path.iterdir()))}"), **labels)
        config = CodesConfig(rows_per_shard=2, rows_per_wave=20, batch_size=4)
        return run_encode_job(str(tmp_path / name), snapshot, fitted, None, config, max_rejects=0.05).digest

    made_shards.stop_after = 31
    with pytest.raises(RuntimeError, match="stopped here"):
        encode("codes", relabelled="0/0006.png")
    first, made_shards.keys = made_shards.keys, []
    made_shards.stop_after = 1000
    shutil.copy(pictures / "0" / "0099.png", pictures / "0" / "-first.png")
    (pictures / "0" / "0030.png").unlink()
    write_pictures(pictures, range(60, 61), seed=1)
    encode("codes", relabelled="0/0012.png")
    assert len(first) == 62 and not {"0/0003.png", "0/0006.png", "0/0012.png"} & set(made_shards.keys)
    unseen = {str(path.relative_to(pictures)) for path in pictures.rglob("*.png")} - set(first)
    assert sorted(made_shards.keys) == sorted({*unseen, "0/0060.png"}) and "0/-first.png" in unseen
    encode("fresh", relabelled="0/0012.png")
    assert dataset_rows(str(tmp_path / "codes")) == dataset_rows(str(tmp_path / "fresh"))
    assert verify_dataset(str(tmp_path / "codes")) == []


def test_records_of_other_preprocessing_are_not_reused(encode, fitted, made_shards, pictures, tmp_path):
    made_shards.stop_after = 5
    with pytest.raises(RuntimeError, match="stopped here"):
        encode()
    made_shards.clear()
    made_shards.stop_after = 1000
    snapshot = commit_images(str(pictures), str(tmp_path / "brighter"), background=(9, 9, 9))
    run_encode_job(str(tmp_path / "codes"), snapshot, fitted, None)
    assert len(made_shards) == 13 and verify_dataset(str(tmp_path / "codes")) == []


def test_a_recorded_shard_with_a_truncated_file_is_encoded_again(encode, made_shards, tmp_path):
    made_shards.stop_after = 3
    with pytest.raises(RuntimeError, match="stopped here"):
        encode()
    name = made_shards[1]
    (cut,) = (tmp_path / "codes").glob(f"*/{Path(name).stem}-*.parquet")
    cut.write_bytes(cut.read_bytes()[:-1])
    made_shards.clear()
    made_shards.stop_after = 1000
    encode()
    assert name in made_shards and len(made_shards) == 13 - 2 and verify_dataset(str(tmp_path / "codes")) == []


def test_unchanged_rows_are_not_encoded_again(encode, made_shards, pictures, tmp_path):
    encode()
    made_shards.clear()
    assert encode().facts.version == 1 and made_shards == []
    write_pictures(pictures, range(100, 110))
    (pictures / "0" / "0030.png").unlink()
    assert encode().facts.version == 2 and len(made_shards) == 2 + 1  # two shards of new rows, one rewritten
    encode("fresh")
    assert dataset_rows(str(tmp_path / "codes")) == dataset_rows(str(tmp_path / "fresh"))


def test_distrusted_shards_are_encoded_again(encode, made_shards, tmp_path):
    digest = encode().digest
    made_shards.clear()
    path = read_dataset(str(tmp_path / "codes")).shards[4].path
    assert encode(distrusted=frozenset([path])).digest == digest
    (name,) = made_shards
    assert Path(name).stem in path


def test_an_image_that_changed_since_the_snapshot_fails_the_job(fitted, pictures, tmp_path):
    snapshot = commit_images(str(pictures), str(tmp_path / "snapshot"))
    (pictures / "0" / "0000.png").write_bytes(b"another size")
    with pytest.raises(StorageError, match=r"0000\.png changed since the snapshot listed it: run again"):
        run_encode_job(str(tmp_path / "codes"), snapshot, fitted, None)
    assert not (tmp_path / "codes" / "manifests").exists()


def test_nothing_is_written_after_the_lease_is_lost(encode, tmp_path):
    class LosingTheLease(Progress):
        def update(self, job: str, **state) -> None:
            (tmp_path / "codes" / ".lease" / "000099.json").write_text("{}")

    with pytest.raises(LeaseLost, match="taken over by a newer run"):
        encode(progress=LosingTheLease())
    assert shard_write_times(tmp_path / "codes") == {} and not (tmp_path / "codes" / "manifests").exists()


def test_the_thread_count_of_the_process_is_restored(encode, fitted, monkeypatch):
    threads = []
    make = ShardEncoder.make_shard
    monkeypatch.setattr(
        ShardEncoder, "make_shard", lambda *args: threads.append(torch.get_num_threads()) or make(*args)
    )
    before = torch.get_num_threads()
    encode(resources=StepResources(workers=4, cpus=3, readers=0))
    assert set(threads) == {3} and torch.get_num_threads() == before


def test_a_dataset_of_an_earlier_version_is_read_verified_and_extended(encode, pictures, tmp_path):
    tokenizer = TokenizerFiles(FORMAT_1_TOKENIZER, tokenizer_digest(FORMAT_1_TOKENIZER))
    encode(tokenizer=tokenizer)
    folder = str(tmp_path / "codes")
    manifest = json.loads(newest_manifest(tmp_path / "codes").read_text())
    for name in ("image_size", "channels"):  # facts that an earlier version did not write
        del manifest["facts"][name]
    newest_manifest(tmp_path / "codes").write_text(json.dumps(manifest))
    assert json.loads(stored_path(tmp_path / "codes", "tokenizer/config.json").read_text())["format"] == 1
    before = read_dataset(folder)
    assert verify_dataset(folder) == [] and len(read_codes(folder, "train", tmp_path / "cache")) > 50
    write_pictures(pictures, range(100, 110))
    stored = TokenizerFiles(stored_path(folder, "tokenizer/config.json").parent, tokenizer.digest)
    facts = encode(tokenizer=stored).facts
    assert (facts.rows, facts.version, facts.dimensions) == (110, 2, 256) and verify_dataset(folder) == []
    assert {shard.path for shard in before.shards} <= {shard.path for shard in read_dataset(folder).shards}

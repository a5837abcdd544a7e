"""Snapshots: ids, splits, copies, digests, and what a reader gets back."""

import shutil

import pytest

from components import parquet, storage
from components.images.config import AugmentConfig
from components.images.manifest import SCHEMA, SNAPSHOT, read_snapshot
from components.images.rejects import REJECTS, inspect_rows
from components.images.snapshot import commit_snapshot
from components.images.sources import list_images
from components.images.split import TRAIN, split_of

AUGMENT = AugmentConfig(copies=3, degrees=10)


@pytest.fixture
def taken(settings, tree):
    """taken(folder): a snapshot taken as the step takes it."""

    def take(folder, seed=0, **changes):
        config = settings(uri=str(tree), **{"held_out": 0.3, "augment": AUGMENT, **changes})
        listing = list_images(config, str(folder))
        commit_snapshot(str(folder), listing, inspect_rows(listing.table, config), config, seed=seed)
        return read_snapshot(str(folder))

    return take


def test_rows_follow_the_sorted_keys_and_only_training_images_have_copies(tree, tmp_path, taken):
    snapshot = taken(tmp_path / "s")
    expected = []
    for place, key in enumerate(sorted(f"{name}/{number:02}.png" for name in ("cat", "dog") for number in range(30))):
        split = split_of(key, 0.3)
        expected += [(place * 3 + copy, key, split, copy) for copy in range(3 if split == TRAIN else 1)]
    columns = [snapshot.table[name].to_pylist() for name in ("id", "key", "split", "copy")]
    assert list(zip(*columns, strict=True)) == expected
    assert snapshot.table.schema.equals(SCHEMA) and snapshot.classes == ("cat", "dog")


def test_counts_and_views_agree(tree, tmp_path, taken):
    snapshot = taken(tmp_path / "s")
    counts = snapshot.counts()
    assert counts.images == 60 and counts.train_rows == 3 * counts.train_images
    assert counts.rows == snapshot.table.num_rows == counts.train_rows + counts.held_out
    facts = storage.read_manifest(str(tmp_path / "s"))["facts"]
    assert counts._asdict().items() <= facts.items() and facts["rejects"] == 0


def test_rejects_leave_the_snapshot_and_are_kept_beside_it(tree, tmp_path, taken):
    (tree / "cat" / "05.png").write_text("oops")
    snapshot = taken(tmp_path / "s", max_rejects=0.1)
    assert "cat/05.png" not in snapshot.table["key"].to_pylist() and snapshot.counts().images == 59
    rejected = parquet.from_bytes((tmp_path / "s" / REJECTS).read_bytes()).to_pylist()
    assert [(row["key"], row["reason"]) for row in rejected] == [("cat/05.png", "not_an_image")]


def test_the_digest_names_rows_and_pixels(tree, tmp_path, taken):
    first = taken(tmp_path / "1")
    assert taken(tmp_path / "2").digest == first.digest
    changes = [{"seed": 1}, {"held_out": 0.4}, {"background": (0, 0, 0)}, {"augment": AugmentConfig(copies=3)}]
    digests = {taken(tmp_path / f"c{number}", **change).digest for number, change in enumerate(changes)}
    assert len(digests | {first.digest}) == 5


def test_the_seed_matters_only_where_copies_are_made(tree, tmp_path, taken):
    plain = [taken(tmp_path / str(seed), seed=seed, augment=AugmentConfig()).digest for seed in (0, 1)]
    assert plain[0] == plain[1]


def test_a_packed_snapshot_may_move(tmp_path, settings):
    config = settings(source="digits", uri=None, channels=1)
    for name in ("here", "there"):
        listing = list_images(config, str(tmp_path / name))
        commit_snapshot(str(tmp_path / name), listing, [], config, seed=0)
    shutil.move(tmp_path / "there", tmp_path / "moved")
    here, moved = read_snapshot(str(tmp_path / "here")), read_snapshot(str(tmp_path / "moved"))
    assert here.digest == moved.digest
    assert set(moved.table["uri"].to_pylist()) == {str(tmp_path / "moved" / "images.parquet")}


def test_a_class_without_training_images_is_refused(tree, tmp_path, taken):
    for path in sorted((tree / "dog").iterdir()):
        if split_of(f"dog/{path.name}", 0.3) == TRAIN:
            path.unlink()
    with pytest.raises(ValueError, match=r"every class must keep at least one .* got none for 1 of 2.*'dog'"):
        taken(tmp_path / "s")


def test_a_damaged_snapshot_is_noticed(tree, tmp_path, taken):
    taken(tmp_path / "s")
    path = tmp_path / "s" / SNAPSHOT
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(storage.StorageError, match="is not the file that its manifest lists"):
        read_snapshot(str(tmp_path / "s"))
    with pytest.raises(FileNotFoundError):
        read_snapshot(str(tmp_path / "nothing"))

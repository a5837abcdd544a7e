"""Snapshots: ids, splits, copies, digests, and reading them back."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from components.artifacts import digest_of
from components.errors import StorageError
from components.images import commit, snapshot_writer
from components.images.commit import check_trainable, commit_snapshot, find_collisions, plan_listing, row_hashes
from components.images.config import AugmentConfig, PixelConfig
from components.images.facts import SnapshotFacts
from components.images.inspection import InspectorHere, inspect_listing
from components.images.listing import LISTING_SCHEMA, listing_of
from components.images.rejects import REJECTS_FILE, Reject
from components.images.snapshot import SNAPSHOT_SCHEMA, open_snapshot, read_snapshot
from components.images.snapshot_writer import save_snapshot
from components.images.sources.registry import list_images
from components.images.split import HELD_OUT, TEST, TRAIN, split_of
from components.store import commits, objects, parquet
from tests.store.committed_files import stored_path

write_bytes = objects.write_bytes
AUGMENT = AugmentConfig(copies=3, degrees=10)


@pytest.fixture
def take_snapshot(settings, tree):
    """take_snapshot(folder): a snapshot committed as the images step does, and read back."""

    def take(folder, seed=0, **changes):
        config = settings(uri=str(tree), **{"held_out": 0.3, "augment": AUGMENT, **changes})
        listing = list_images(config, str(folder))
        usable, rejects, _ = inspect_listing(listing, InspectorHere(config), None)
        commit_snapshot(str(folder), usable, rejects, config, seed=seed)
        return read_snapshot(str(folder))

    return take


def check(listing, config, rejects=()):
    check_trainable(plan_listing(listing, rejects, config), listing.classes, config)


def test_rows_follow_the_sorted_keys_and_only_training_images_have_copies(tree, tmp_path, take_snapshot):
    snapshot = take_snapshot(tmp_path / "s")
    expected = []
    # 30 images per class: each has training images by the hash alone
    for key in sorted(f"{name}/{number:02}.png" for name in ("cat", "dog") for number in range(30)):
        split = split_of(key, 0.3)
        expected += [(key, split, copy) for copy in range(3 if split == TRAIN else 1)]
    columns = [snapshot.table[name].to_pylist() for name in ("key", "split", "copy")]
    assert list(zip(*columns, strict=True)) == expected
    assert snapshot.table.schema.equals(SNAPSHOT_SCHEMA) and snapshot.classes == ("cat", "dog")


def test_an_image_keeps_its_id_and_split_when_other_images_change(tree, tmp_path, take_snapshot):
    def rows(folder):
        return {(row["key"], row["copy"]): (row["id"], row["split"]) for row in take_snapshot(folder).table.to_pylist()}

    before = rows(tmp_path / "before")
    (tree / "dog" / "07.png").unlink()
    (tree / "bee").mkdir()
    (tree / "cat" / "00.png").rename(tree / "bee" / "a.png")
    (tree / "cat" / "01.png").rename(tree / "bee" / "b.png")
    after = rows(tmp_path / "after")
    assert before.keys() != after.keys() and all(after[row] == before[row] for row in before.keys() & after.keys())


@pytest.mark.parametrize("rows_per_table", [1, 3, 100])
def test_rows_whose_hashes_collide_take_the_next_free_numbers(rows_per_table):
    hashes = np.array([3, 3, 3, 4, 9, 9, 10, 20, 20])
    tables = (pa.table({"id": hashes[start : start + rows_per_table]}) for start in range(0, 9, rows_per_table))
    # 3 4 5 for the threes, so the 4 goes to 6; 9 10 for the nines, so the 10 goes to 11; 20 21
    assert find_collisions(tables) == {(3, 1): 4, (3, 2): 5, (4, 0): 6, (9, 1): 10, (10, 0): 11, (20, 1): 21}


def test_ids_are_unique_where_hashes_collide(tree, tmp_path, take_snapshot, monkeypatch):
    snapshot = take_snapshot(tmp_path / "plain")
    assert (
        snapshot.table["id"].to_pylist()
        == row_hashes(snapshot.table["key"].to_pylist(), np.asarray(snapshot.table["copy"])).tolist()
    )
    monkeypatch.setattr(commit, "row_hashes", lambda keys, copies: row_hashes(keys, copies) >> 55)  # 7 bits
    ids = take_snapshot(tmp_path / "collided").table["id"].to_pylist()
    wanted = sorted(
        (row_hashes([key], np.array([copy]))[0] >> 55, number)
        for number, (key, copy) in enumerate(
            zip(snapshot.table["key"].to_pylist(), snapshot.table["copy"].to_pylist(), strict=True)
        )
    )
    free, expected = 0, {}
    for value, number in wanted:  # one after another: its own number, or the next free one
        free = expected[number] = max(value, free)
        free += 1
    assert ids == [expected[number] for number in range(len(ids))] and len(set(ids)) == len(ids) > 100


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_waves_hold_every_row_once_in_order(tmp_path, take_snapshot, rows):
    snapshot = take_snapshot(tmp_path / "s")
    waves = list(open_snapshot(str(tmp_path / "s")).waves(rows))
    assert all(wave.num_rows == rows for wave in waves[:-1]) and waves[-1].num_rows >= 1
    assert pa.concat_tables(waves).to_pylist() == snapshot.table.to_pylist()


def test_a_snapshot_stores_its_pixel_settings_and_seed(tmp_path, take_snapshot):
    take_snapshot(tmp_path / "s", seed=3, background=(1, 2, 3))
    opened, read = open_snapshot(str(tmp_path / "s")), read_snapshot(str(tmp_path / "s"))
    assert opened.pixels == PixelConfig(image_size=16, background=(1, 2, 3), augment=AUGMENT) and opened.seed == 3
    assert (read.pixels, read.seed, read.table.num_rows) == (opened.pixels, opened.seed, opened.rows)
    take_snapshot(tmp_path / "t", seed=4, background=(1, 2, 3))
    assert open_snapshot(str(tmp_path / "t")).preprocessing != opened.preprocessing


def test_facts_and_views_agree(tree, tmp_path, take_snapshot):
    snapshot = take_snapshot(tmp_path / "s")
    facts = SnapshotFacts.read(commits.read_manifest(str(tmp_path / "s"))["facts"])
    assert facts.images == 60 and facts.train_rows == 3 * facts.train_images and facts.rejects == 0
    assert facts.rows == snapshot.table.num_rows == facts.train_rows + facts.held_out
    views = [snapshot.originals(TRAIN), snapshot.split(TRAIN), snapshot.split(HELD_OUT)]
    assert [view.num_rows for view in views] == [facts.train_images, facts.train_rows, facts.held_out]
    assert (facts.classes, facts.image_size, facts.channels) == (2, 16, 3)


def test_the_pixels_of_format_2_keep_their_digest(tmp_path, settings):
    config = settings(source="digits", uri=None, channels=1)
    commit_snapshot(str(tmp_path), list_images(config, str(tmp_path)), [], config, seed=5)
    plain = {"image_size": 16, "channels": 1, "upscale": False, "background": [255, 255, 255], "augment": None}
    assert open_snapshot(str(tmp_path)).preprocessing == digest_of({"rules": 1, **plain})


def test_copies_keep_the_digest_that_they_had_before_flips(tmp_path, take_snapshot):
    take_snapshot(tmp_path / "plain", seed=3)
    moves = {"copies": 3, "degrees": 10, "scale": 0.0, "shift": 0.0, "seed": 3}
    described = {"image_size": 16, "channels": 3, "upscale": False, "background": [255, 255, 255], "augment": moves}
    plain = open_snapshot(str(tmp_path / "plain"))
    assert plain.preprocessing == digest_of({"rules": 1, **described}) and not plain.pixels.augment.flip
    take_snapshot(tmp_path / "flipped", seed=3, augment=AugmentConfig(copies=2, flip=True))
    assert open_snapshot(str(tmp_path / "flipped")).pixels.augment == AugmentConfig(copies=2, flip=True)


def test_rejects_are_in_their_own_table_and_not_in_the_snapshot(tree, tmp_path, take_snapshot):
    (tree / "cat" / "05.png").write_text("oops")
    snapshot = take_snapshot(tmp_path / "s", max_rejects=0.1)
    assert (
        "cat/05.png" not in snapshot.table["key"].to_pylist()
        and snapshot.originals(TRAIN).num_rows + snapshot.split(HELD_OUT).num_rows == 59
    )
    rejected = parquet.from_bytes(stored_path(tmp_path / "s", REJECTS_FILE).read_bytes()).to_pylist()
    assert [(row["key"], row["reason"]) for row in rejected] == [("cat/05.png", "not_an_image")]


def test_the_digest_changes_with_rows_and_pixels(tree, tmp_path, take_snapshot):
    first = take_snapshot(tmp_path / "1")
    assert take_snapshot(tmp_path / "2").digest == first.digest
    changes = [{"seed": 1}, {"held_out": 0.4}, {"background": (0, 0, 0)}, {"augment": AugmentConfig(copies=3)}]
    changes.append({"augment": dataclasses.replace(AUGMENT, flip=True)})
    digests = {take_snapshot(tmp_path / f"c{number}", **change).digest for number, change in enumerate(changes)}
    assert len(digests | {first.digest}) == 6


def test_the_seed_matters_only_with_augmented_copies(tree, tmp_path, take_snapshot):
    plain = [take_snapshot(tmp_path / str(seed), seed=seed, augment=AugmentConfig()).digest for seed in (0, 1)]
    assert plain[0] == plain[1]


def test_test_images_are_originals_that_the_evaluation_uses(tmp_path, take_snapshot):
    without, with_test = take_snapshot(tmp_path / "without"), take_snapshot(tmp_path / "with", test=0.2)
    facts = SnapshotFacts.read(commits.read_manifest(str(tmp_path / "with"))["facts"])
    assert facts.test == with_test.split(TEST).num_rows > 0 and f"{facts.test} to test on" in facts.headline()
    assert set(with_test.split(TEST)["copy"].to_pylist()) == {0}
    assert facts.train_images + facts.held_out + facts.test == facts.images == 60
    assert (without.evaluation_split, with_test.evaluation_split) == (HELD_OUT, TEST)
    assert with_test.split(HELD_OUT)["id"].equals(without.split(HELD_OUT)["id"])


def test_pictures_and_figures_show_every_class(tmp_path, take_snapshot):
    snapshot = take_snapshot(tmp_path / "s")
    assert {row["label"] for row in snapshot.originals(HELD_OUT).slice(0, 2).to_pylist()} == {0}  # sorted by class
    stored = open_snapshot(str(tmp_path / "s"))
    for rows in (snapshot.sample(HELD_OUT, 2), stored.gallery(HELD_OUT, 2), stored.gallery(TRAIN, 2)):
        assert {row["label"] for row in rows.to_pylist()} == {0, 1}
    assert set(snapshot.sample(TRAIN, 30)["copy"].to_pylist()) == {0}


def test_a_packed_snapshot_can_be_moved(tmp_path, settings):
    config = settings(source="digits", uri=None, channels=1)
    for name in ("here", "there"):
        listing = list_images(config, str(tmp_path / name))
        commit_snapshot(str(tmp_path / name), listing, [], config, seed=0)
    shutil.move(tmp_path / "there", tmp_path / "moved")
    here, moved = read_snapshot(str(tmp_path / "here")), read_snapshot(str(tmp_path / "moved"))
    assert here.digest == moved.digest
    assert set(moved.table["uri"].to_pylist()) == {str(tmp_path / "moved" / "images.parquet")}


def test_a_class_keeps_its_last_training_image(tree, tmp_path, take_snapshot):
    for path in sorted((tree / "dog").iterdir()):
        if split_of(f"dog/{path.name}", 0.3) == TRAIN:
            path.unlink()
    left = len(list((tree / "dog").iterdir()))
    rows = take_snapshot(tmp_path / "s", augment=AugmentConfig()).table.to_pylist()
    splits = [row["split"] for row in rows if row["label"] == 1]
    assert left > 2 and sorted(splits) == [HELD_OUT] * (left - 1) + [TRAIN]


def test_classes_without_usable_images_are_refused(tree, settings):
    config = settings(uri=str(tree), held_out=0.3)
    listing = list_images(config, "unused")
    rejects = [Reject(key, "u", "empty", "") for key in listing.table["key"].to_pylist() if key.startswith("dog/")]
    with pytest.raises(ValueError, match=r"every class must keep at least one .* got none for 1 of 2.*'dog'"):
        check(listing, config, rejects)


def test_images_must_all_have_labels_or_none(tree, tmp_path, settings):
    config = settings(uri=str(tree), source="files", held_out=0.3)
    check(list_images(config, "unused"), config)  # no labels: a model without classes
    (tmp_path / "labels.csv").write_text("key,label\n" + "".join(f"cat/{n:02}.png,cat\n" for n in range(30)))
    config = settings(uri=str(tree), source="files", held_out=0.3, labels=str(tmp_path / "labels.csv"))
    with pytest.raises(ValueError, match=r"got 30 of 60 without one: .* without classes, leave images\.labels out"):
        check(list_images(config, "unused"), config)


def test_tables_that_name_classes_and_label_no_image_are_refused(settings):
    config = settings(source="parquet", uri="s3://bucket/tables", held_out=0.3)
    columns = [
        [f"{n}.png" for n in range(9)],
        [None] * 9,
        ["t.parquet"] * 9,
        [None] * 9,
        [None] * 9,
        [""] * 9,
        [None] * 9,
    ]
    listing = listing_of(pa.table(columns, schema=LISTING_SCHEMA), ("ant", "bee"))
    with pytest.raises(ValueError, match=r"got 9 of 9 without one: .* set images\.label_column to a column that"):
        check(listing, config)


def test_classes_of_very_different_sizes_can_be_trained_on(tmp_path, settings):
    keys = sorted([f"many/{n:05}.jpg" for n in range(20_000)] + [f"few/{n:02}.jpg" for n in range(15)])
    labels = [int(key.startswith("many")) for key in keys]
    count = len(keys)
    columns = [keys, labels, keys, [None] * count, [1] * count, ["1"] * count, [None] * count]
    listing, config = listing_of(pa.table(columns, schema=LISTING_SCHEMA), ("few", "many")), settings()
    check(listing, config)
    commit_snapshot(str(tmp_path), listing, [], config, seed=0)
    facts = SnapshotFacts.read(commits.read_manifest(str(tmp_path))["facts"])
    assert (facts.images, facts.classes) == (20_015, 2) and facts.train_images > 17_900


def test_a_folder_without_classes_is_a_snapshot_without_classes(tmp_path, photo, settings):
    for number in range(12):
        photo.rotate(number * 6).save(tmp_path / f"{number}.png")
    config = settings(uri=str(tmp_path), held_out=0.3)
    listing = list_images(config, "unused")
    check(listing, config)
    commit_snapshot(str(tmp_path / "s"), listing, [], config, seed=0)
    snapshot = read_snapshot(str(tmp_path / "s"))
    assert snapshot.classes == () and snapshot.table["label"].null_count == 12
    assert SnapshotFacts.read(commits.read_manifest(str(tmp_path / "s"))["facts"]).classes == 0


@pytest.mark.parametrize("file", ["rows-*.parquet", "locations-*.parquet", "snapshot.json"])
def test_a_damaged_snapshot_is_detected(tree, tmp_path, take_snapshot, file):
    take_snapshot(tmp_path / "s")
    (path,) = (tmp_path / "s").glob(f"*/{file}")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for read in (read_snapshot, lambda folder: list(open_snapshot(folder).waves(10))):
        with pytest.raises(StorageError, match="is not the file that its manifest lists"):
            read(str(tmp_path / "s"))
    with pytest.raises(FileNotFoundError):
        read_snapshot(str(tmp_path / "nothing"))


def test_a_snapshot_of_format_2_stays_readable(tmp_path):
    count = 4
    columns = {
        "id": pa.array(range(count), pa.int64()),
        "key": [f"{number}.png" for number in range(count)],
        "label": pa.array([None, 0, 1, 0], pa.int32()),
        "split": ["train"] * count,
        "copy": pa.array([0] * count, pa.int16()),
        "uri": ["s3://bucket/0.png", "/data/1.png", "images.parquet", "images.parquet"],
        "member": [None, None, "0:0:image", "0:1:image"],
        "size": pa.array([1, 2, None, None], pa.int64()),
        "etag": ["a", "b", "c", "sha256:" + "0f" * 16],
    }
    pixels = {"rules": 1, "image_size": 16, "channels": 3, "upscale": False, "background": [1, 2, 3], "augment": None}
    metadata = {"vqvae2": json.dumps({"format": 2, "classes": ["a", "b"], **pixels})}
    table = pa.table(columns).replace_schema_metadata(metadata)
    commits.save_artifact(str(tmp_path), {"snapshot.parquet": parquet.to_bytes(table)}, {})
    snapshot, opened = read_snapshot(str(tmp_path)), open_snapshot(str(tmp_path))
    assert snapshot.table["content"].to_pylist() == [None, None, None, b"\x0f" * 16]
    assert snapshot.table["uri"].to_pylist()[1:3] == ["/data/1.png", f"{tmp_path}/images.parquet"]
    assert (opened.rows, opened.classes, opened.preprocessing) == (4, ("a", "b"), digest_of(pixels))
    assert pa.concat_tables(opened.waves(3)).equals(snapshot.table) and snapshot.pixels.background == (1, 2, 3)


def test_one_more_image_changes_one_part_and_the_others_are_copied(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(snapshot_writer, "ROWS_PER_PART", 50)
    written = []
    monkeypatch.setattr(objects, "write_bytes", lambda uri, data: written.append(uri) or write_bytes(uri, data))

    def save(name, keys, earlier=None):
        rows = synthetic_rows(keys)
        save_snapshot(str(tmp_path / name), rows, (), settings(), 0, earlier)
        return open_snapshot(str(tmp_path / name))

    keys = [f"{number:04}.png" for number in range(1000)]
    before = save("before", keys)
    written.clear()
    after = save("after", sorted([*keys, "0500-new.png"]), before)
    new = [part for part in after.parts if part not in before.parts]
    assert len(before.parts) > 10 and len(new) == 1 and new[0].first_key < "0500-new.png" <= new[0].last_key
    names = sorted(uri.rpartition("/")[2].partition("-")[0] for uri in written)
    assert names == ["locations", "rows", "snapshot.json"]
    assert pa.concat_tables(after.waves(77)).equals(synthetic_rows(sorted([*keys, "0500-new.png"])))


def test_the_digest_depends_on_content_and_not_on_where_and_when(tmp_path, settings):
    rows = synthetic_rows([f"{number}.png" for number in range(9)], content=b"c" * 16)

    def digest(name, **changes):
        table = rows
        for column, value in changes.items():
            index = table.schema.get_field_index(column)
            table = table.set_column(index, table.schema.field(index), pa.array([value] * 9, table.schema.types[index]))
        return save_snapshot(str(tmp_path / name), table, (), settings(), 0)

    here = digest("here")
    assert (
        digest("moved", uri="s3://elsewhere/x.png", etag="touched", size=7) == here != digest("new", content=b"d" * 16)
    )
    # An image that was never read is known by its size and etag.
    unread = digest("unread", content=None)
    assert unread not in (here, digest("etag", content=None, etag="touched")) and unread != digest(
        "s", content=None, size=7
    )


def synthetic_rows(keys, content=None):
    count = len(keys)
    columns = {
        "id": row_hashes(keys, np.zeros(count, int)),
        "key": keys,
        "label": [None] * count,
        "split": [TRAIN] * count,
        "copy": [0] * count,
        "content": [content] * count,
        "uri": [f"/images/{key}" for key in keys],
        "member": [None] * count,
        "size": [1] * count,
        "etag": ["e"] * count,
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SNAPSHOT_SCHEMA], schema=SNAPSHOT_SCHEMA)


@pytest.mark.parametrize("count", [1, 5, 48, 400])
def test_a_gallery_read_part_by_part_is_that_of_all_rows(tmp_path, settings, monkeypatch, count):
    monkeypatch.setattr(snapshot_writer, "ROWS_PER_PART", 20)
    rows = synthetic_rows([f"{number:03}.png" for number in range(300)])
    labels = pa.array([[0, None, 1, 2, 2, 2][number % 6] for number in range(300)], pa.int32())
    save_snapshot(str(tmp_path), rows.set_column(2, SNAPSHOT_SCHEMA.field(2), labels), ("a", "b", "c"), settings(), 0)
    stored = open_snapshot(str(tmp_path))
    expected = read_snapshot(str(tmp_path)).gallery(TRAIN, count)
    assert len(stored.parts) > 5 and stored.gallery(TRAIN, count)["key"].equals(expected["key"])

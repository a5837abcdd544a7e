"""The folder source, compared with the files on disk."""

import os
import uuid

import fsspec
import pytest

from components.errors import StorageError
from components.images.sources.registry import list_images
from components.store import objects


@pytest.fixture
def list_folder(settings):
    """list_folder(root): the listing of the folder source."""
    return lambda root: list_images(settings(uri=str(root)), "unused")


def test_folder_lists_every_image_with_its_class(tree, list_folder):
    listing = list_folder(tree)
    assert listing.classes == ("cat", "dog") and listing.table.num_rows == 60
    row = listing.table.to_pylist()[30]
    assert row["key"] == "dog/00.png" and row["label"] == 1 and row["member"] is None
    assert row["size"] == os.path.getsize(row["uri"]) and row["etag"] == str(os.stat(row["uri"]).st_mtime_ns)


def test_images_directly_in_the_folder_have_no_labels(tmp_path, photo, list_folder):
    for name in ("b.png", "a.PNG"):
        photo.save(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "list.txt").write_text("no image")
    listing = list_folder(tmp_path)
    assert listing.table["key"].to_pylist() == ["a.PNG", "b.png"] and listing.table["label"].null_count == 2
    assert listing.classes == () and listing.ignored == 1


def test_a_split_beside_other_folders_is_a_class(tmp_path, photo, list_folder):
    for name in ("test", "cat"):  # 'test' may be what a class is called
        (tmp_path / name).mkdir()
        photo.save(tmp_path / name / "1.png")
    assert list_folder(tmp_path).classes == ("cat", "test")


def test_extensions_in_any_case_count_and_other_files_are_ignored(tree, list_folder):
    (tree / "cat" / "deep").mkdir()
    for name in ("ROSE.JPeG", "1.jfif", "2.jpe", "3.bmp", "4.tif", "5.gif"):
        (tree / "cat" / "deep" / name).write_bytes(b"x")
    for name in ("cat/notes.txt", ".DS_Store", "cat/.hidden.png", "__MACOSX/cat.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    listing = list_folder(tree)
    assert listing.classes == ("cat", "dog") and listing.ignored == 4
    assert sum(key.startswith("cat/deep/") for key in listing.table["key"].to_pylist()) == 6


def test_linked_class_folders_are_followed_and_loops_refused(tree, tmp_path, list_folder):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lynx").symlink_to(tree / "cat")
    assert list_folder(tmp_path / "other").table.num_rows == 30
    (tmp_path / "other" / "loop").symlink_to(tmp_path / "other")
    with pytest.raises(StorageError, match="links back to a folder"):
        list_folder(tmp_path / "other")


def test_any_fsspec_url_works(photo, encoded, list_folder):
    root = f"memory://{uuid.uuid4().hex}"
    for name in ("a/1.png", "b/2.png"):
        fsspec.filesystem("memory").pipe_file(f"{root}/{name}", encoded(photo, "PNG"))
    rows = list_folder(root).table.to_pylist()
    assert [row["uri"] for row in rows] == [f"{root}/a/1.png", f"{root}/b/2.png"] and all(row["etag"] for row in rows)
    assert objects.read_bytes(rows[0]["uri"]) == encoded(photo, "PNG")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found no file under .*: is the path right"),
        (["a/readme.txt"], "must hold images .* found 1 files .* none of these, for example 'a/readme.txt'"),
        (
            ["1.png", "2.png", "cat/3.png"],
            r"all directly in .*; found 2 directly in it, for example \['1.png'\], beside 1 folders with images, for "
            r"example \['cat'\]: move each image into the folder of its class, or set images.source=files",
        ),
        (["train/cat/1.png", "val/cat/2.png"], r"only train, val, which are splits .*images\.uri=.*/train \("),
        (["Test/1.png"], r"found only Test, which are splits of a dataset: give one split, images\.uri=.*/Test "),
        ([b"a/\xff.png"], "names of images must be UTF-8"),
    ],
)
def test_a_folder_that_is_no_set_of_classes_or_images_is_refused(tmp_path, files, message, list_folder):
    for name in files:
        path = os.fsencode(tmp_path) + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")
    with pytest.raises(ValueError, match=message):
        list_folder(tmp_path)
    with pytest.raises(ValueError, match="found no file under"):
        list_folder(tmp_path / "missing")


def test_the_listing_digest_changes_with_the_files(tree, list_folder):
    before = list_folder(tree).digest()
    assert list_folder(tree).digest() == before
    os.utime(tree / "cat" / "00.png", ns=(1, 1))
    touched = list_folder(tree).digest()
    (tree / "dog" / "00.png").unlink()
    assert len({before, touched, list_folder(tree).digest()}) == 3

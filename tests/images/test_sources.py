"""Sources against the disk they list, and against scikit-learn's own arrays."""

import io
import os
import uuid

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from components.errors import StorageError
from components.images.config import ImagesConfig
from components.images.fetch import fetch_image
from components.images.sources.digits import DIGITS_FILE
from components.images.sources.registry import list_images
from components.store import objects

DIGITS = ImagesConfig(source="digits", image_size=32, channels=1)


@pytest.fixture
def listed(settings):
    """listed(root): what the folder source finds."""
    return lambda root: list_images(settings(uri=str(root)), "unused")


def test_folder_lists_every_image_with_its_class(tree, listed):
    listing = listed(tree)
    assert listing.classes == ("cat", "dog") and listing.table.num_rows == 60
    row = listing.table.to_pylist()[30]
    assert row["key"] == "dog/00.png" and row["label"] == 1 and row["member"] is None
    assert row["size"] == os.path.getsize(row["uri"]) and row["etag"] == str(os.stat(row["uri"]).st_mtime_ns)


def test_extensions_in_any_case_count_and_other_files_are_ignored(tree, listed):
    (tree / "cat" / "deep").mkdir()
    (tree / "cat" / "deep" / "ROSE.JPeG").write_bytes(b"x")
    for name in ("cat/notes.txt", ".DS_Store", "cat/.hidden.png", "__MACOSX/cat.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"x")
    listing = listed(tree)
    assert listing.classes == ("cat", "dog") and listing.ignored == 4
    assert "cat/deep/ROSE.JPeG" in listing.table["key"].to_pylist()


def test_linked_class_folders_are_followed_and_loops_refused(tree, tmp_path, listed):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lynx").symlink_to(tree / "cat")
    assert listed(tmp_path / "other").table.num_rows == 30
    (tmp_path / "other" / "loop").symlink_to(tmp_path / "other")
    with pytest.raises(StorageError, match="links back to a folder"):
        listed(tmp_path / "other")


def test_any_fsspec_url_works(photo, encoded, listed):
    root = f"memory://{uuid.uuid4().hex}"
    for name in ("a/1.png", "b/2.png"):
        fsspec.filesystem("memory").pipe_file(f"{root}/{name}", encoded(photo, "PNG"))
    rows = listed(root).table.to_pylist()
    assert [row["uri"] for row in rows] == [f"{root}/a/1.png", f"{root}/b/2.png"] and all(row["etag"] for row in rows)
    assert objects.read_bytes(rows[0]["uri"]) == encoded(photo, "PNG")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found no file under .*: is the path right"),
        (["a/readme.txt"], "must hold images .* found 1 files .* none of these, for example 'a/readme.txt'"),
        (["1.png", "2.png"], "every image must lie in the folder of its class, found 2 directly in"),
        ([b"a/\xff.png"], "names of images must be UTF-8"),
    ],
)
def test_a_folder_without_classes_or_images_is_refused(tmp_path, files, message, listed):
    for name in files:
        path = os.fsencode(tmp_path) + b"/" + os.fsencode(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")
    with pytest.raises(ValueError, match=message):
        listed(tmp_path)
    with pytest.raises(ValueError, match="found no file under"):
        listed(tmp_path / "missing")


def test_the_digest_of_a_listing_follows_the_files(tree, listed):
    before = listed(tree).digest()
    assert listed(tree).digest() == before
    os.utime(tree / "cat" / "00.png", ns=(1, 1))
    touched = listed(tree).digest()
    (tree / "dog" / "00.png").unlink()
    assert len({before, touched, listed(tree).digest()}) == 3


def test_digits_are_packed_whole_and_enlarged_smoothly(tmp_path):
    listing = list_images(DIGITS, str(tmp_path))
    packed = [fetch_image(row) for row in listing.table.to_pylist()]
    assert len(packed) == 1797 and listing.classes == tuple("0123456789")
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in packed])
    means = pixels.reshape(-1, 8, 4, 8, 4).mean((2, 4)) / 255 * 16
    original = load_digits()
    assert pixels.shape[1:] == (32, 32) and np.corrcoef(means.ravel(), original.images.ravel())[0, 1] > 0.98
    assert listing.table["label"].to_pylist() == original.target.tolist()


def test_digits_give_the_same_bytes_twice(tmp_path):
    first, second = (list_images(DIGITS, str(tmp_path / name)) for name in ("a", "b"))
    assert first.files == second.files and first.digest() == second.digest()
    assert (tmp_path / "a" / DIGITS_FILE).read_bytes() == (tmp_path / "b" / DIGITS_FILE).read_bytes()
    assert pq.read_schema(tmp_path / "a" / DIGITS_FILE).names == ["key", "image", "label"]

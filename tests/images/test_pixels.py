"""Rows read as pixels, compared with decoding and augmenting them directly."""

import numpy as np
import pyarrow.compute as pc
import pytest

from components.errors import StorageError
from components.images.augment import augment
from components.images.commit import commit_snapshot
from components.images.config import AugmentConfig
from components.images.decode import decode_image
from components.images.pixels import PixelReader
from components.images.snapshot import read_snapshot
from components.images.sources import row_groups
from components.images.sources.digits import DIGITS_FILE
from components.images.sources.registry import list_images

AUGMENT = AugmentConfig(copies=3, degrees=20, shift=0.1)


def commit_and_read(config, folder):
    listing = list_images(config, str(folder))
    commit_snapshot(str(folder), listing, [], config, seed=5)
    return read_snapshot(str(folder))


def test_rows_are_decoded_and_augmented_in_their_order(tree, tmp_path, settings):
    config = settings(uri=str(tree), augment=AUGMENT)
    rows = commit_and_read(config, tmp_path / "s").table.take([7, 3, 100, 4, 4])
    got = PixelReader(config, 5).read(rows)
    for row, pixels in zip(rows.to_pylist(), got, strict=True):
        original = decode_image((tree / row["key"]).read_bytes(), config)
        assert (pixels == augment(original, AUGMENT, seed=5, key=row["key"], copy=row["copy"])).all()


def test_a_packed_file_is_read_once(tmp_path, requests, settings):
    config = settings(source="digits", uri=None, image_size=8, channels=1)
    rows = commit_and_read(config, tmp_path / "s").table
    row_groups.forget_row_groups()
    requests.clear()
    halves = [PixelReader(config, 0).read(half) for half in (rows.slice(0, 900), rows.slice(900))]
    assert np.concatenate(halves).shape == (1797, 8, 8, 1)
    size = (tmp_path / "s" / DIGITS_FILE).stat().st_size
    assert len(requests) == 2 and sum(part.size for part in requests) < size + (1 << 16)  # the footer, then all images


def test_copies_of_an_image_are_decoded_once_wherever_they_are(tree, tmp_path, settings, requests):
    config = settings(uri=str(tree), augment=AUGMENT)
    rows = commit_and_read(config, tmp_path / "s").table.slice(0, 6).take([0, 3, 1, 4, 2])
    requests.clear()
    PixelReader(config, 5).read(rows)
    assert len(requests) == 2


def test_digits_equal_those_of_scikit_learn(tmp_path, settings):
    from sklearn.datasets import load_digits

    config = settings(source="digits", uri=None, image_size=8, channels=1)
    snapshot = commit_and_read(config, tmp_path / "s")
    pixels = PixelReader(config, 0).read(snapshot.table)
    assert (pixels[..., 0] == np.rint(load_digits().images * (255 / 16))).all()
    assert snapshot.table["label"].to_pylist() == load_digits().target.tolist()


def test_missing_and_changed_files_raise(tree, tmp_path, settings):
    config = settings(uri=str(tree))
    rows = commit_and_read(config, tmp_path / "s").table
    (tree / "cat" / "00.png").unlink()
    (tree / "cat" / "01.png").write_bytes(b"changed")
    for key, error in (("cat/00.png", FileNotFoundError), ("cat/01.png", StorageError)):
        with pytest.raises(error):
            PixelReader(config, 0).read(rows.filter(pc.equal(rows["key"], key)))


def test_changed_content_of_a_packed_file_is_detected(tmp_path, settings):
    config = settings(source="digits", uri=None, image_size=8, channels=1)
    rows = commit_and_read(config, tmp_path / "s").table
    row_groups.forget_row_groups()
    list_images(settings(source="digits", uri=None, image_size=16, channels=1), str(tmp_path / "s"))
    with pytest.raises(StorageError, match=r"digit-0000 in .* changed since"):
        PixelReader(config, 0).read(rows)

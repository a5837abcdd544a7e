"""Image grids: every image is in its cell, sharp and unchanged."""

import io

import numpy as np
import pytest
from PIL import Image

from components import pictures


def random_images(n, h=16, w=16, c=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def decode_png(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_survives_png(channels):
    pixels = random_images(1, 5, 7, channels)[0]
    np.testing.assert_array_equal(pictures.from_png(pictures.to_png(pixels), channels), pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_cell_is_its_image_enlarged_by_whole_pixels(channels):
    rows = [random_images(3, 6, 8, channels), random_images(2, 6, 8, channels, seed=1)]
    sheet = decode_png(pictures.image_grid(rows, scale=4))
    for y, row in enumerate(rows):
        for x, pixels in enumerate(row):
            top, left = pictures.MARGIN + y * (24 + pictures.GAP), pictures.MARGIN + x * (32 + pictures.GAP)
            cell = sheet[top : top + 24, left : left + 32]
            np.testing.assert_array_equal(cell, np.broadcast_to(np.kron(pixels, np.ones((4, 4, 1))), (24, 32, 3)))


def test_labels_move_the_images_right_and_are_drawn():
    rows = [random_images(2)] * 2
    plain, labelled = (
        decode_png(pictures.image_grid(rows, scale=2)),
        decode_png(pictures.image_grid(rows, ["seven", "eight"], scale=2)),
    )
    gutter = labelled.shape[1] - plain.shape[1]
    assert gutter > 30
    assert (labelled[:, : gutter - 2] < 200).any()
    np.testing.assert_array_equal(labelled[:, gutter + pictures.MARGIN :], plain[:, pictures.MARGIN :])


@pytest.mark.parametrize(("side", "cell"), [(8, 56), (32, 64), (64, 64), (200, 200), (512, 256)])
def test_small_images_are_enlarged_and_large_ones_reduced(side, cell):
    assert decode_png(pictures.image_grid([random_images(1, side, side)])).shape[0] == cell + 2 * pictures.MARGIN


def test_reconstructions_are_below_their_originals():
    original, other = random_images(5), random_images(5, seed=1)
    expected = pictures.image_grid(
        [original[:3], other[:3], original[3:], other[3:]], ["original", "reconstruction"] * 2
    )
    assert pictures.reconstruction_grid(original, other, columns=3) == expected


def test_the_samples_of_one_class_continue_in_further_rows():
    images = random_images(23)
    rows = [images[:10], images[10:20], images[20:]]
    assert pictures.sample_grid({"cat": images}) == pictures.image_grid(rows, ["cat", "", ""])
    assert pictures.sample_grid({"": images}) == pictures.image_grid(rows)


def test_prefixes_end_with_the_original():
    original, top = random_images(2), random_images(2, seed=1)
    assert pictures.prefix_grid(original, {"top": top}) == pictures.image_grid([top, original], ["top", "original"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one image per row"),
        ([random_images(1), random_images(1, 8, 8)], "one shape"),
        ([random_images(1, c=2)], "1 or 3"),
        ([random_images(1).astype(np.float32)], "uint8"),
    ],
)
def test_rows_that_cannot_be_drawn_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        pictures.image_grid(rows)


def test_bytes_that_are_not_an_image_are_refused():
    with pytest.raises(ValueError, match="PNG or JPEG file, got 5 bytes"):
        pictures.from_png(b"hello", 1)

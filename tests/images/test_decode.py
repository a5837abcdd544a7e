"""Decoding compared with Pillow's steps done one by one, and with known colours."""

import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from sklearn.datasets import load_sample_image

from components.images import decode as module
from components.images.decode import UnusableImage, decode_image


@pytest.fixture
def reason(settings):
    """reason(data): the reject reason of bytes that cannot be decoded."""

    def decode_and_catch(data: bytes) -> str:
        with pytest.raises(UnusableImage) as caught:
            decode_image(data, settings())
        assert " at 0x" not in caught.value.detail  # equal files must give equal rejects
        return caught.value.reason

    return decode_and_catch


def is_close(left: np.ndarray, right: np.ndarray, tolerance: int = 2) -> bool:
    return np.abs(left.astype(int) - right.astype(int)).max() <= tolerance


def test_short_side_and_centre_crop_match_pillow_fit(photo, settings, encoded):
    expected = np.asarray(ImageOps.fit(photo, (16, 16), Image.Resampling.LANCZOS))
    assert is_close(decode_image(encoded(photo, "PNG"), settings()), expected, 1)


def test_real_photo_scaled_while_decoding_is_close_to_the_full_resize(settings, encoded):
    photo = Image.fromarray(load_sample_image("china.jpg"))
    expected = np.asarray(ImageOps.fit(photo, (64, 64), Image.Resampling.LANCZOS))
    got = decode_image(encoded(photo, "JPEG", quality=95), settings(image_size=64))
    assert np.abs(got.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_is_turned_upright(photo, kind, orientation, settings, encoded):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    turned = encoded(photo, kind, exif=exif, **options)
    with Image.open(io.BytesIO(turned)) as image:
        expected = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (16, 16), Image.Resampling.LANCZOS)
    assert is_close(decode_image(turned, settings()), np.asarray(expected), 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_image_with_broken_exif_is_decoded(photo, settings, encoded):
    data = encoded(photo, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", quality=95)
    assert decode_image(data, settings()).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_uniform_image_keeps_its_grey_in_every_format(kind, channels, settings, encoded):
    data = encoded(Image.new("L", (20, 30), 90), kind)
    pixels = decode_image(data, settings(channels=channels))
    assert pixels.dtype == np.uint8 and pixels.shape == (16, 16, channels) and is_close(pixels, np.full(1, 90), 1)


def test_cmyk_jpeg_is_not_inverted(settings, encoded):
    red = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert is_close(decode_image(red, settings()), np.array([255, 0, 0]), 6)


def test_sixteen_bit_values_are_scaled_not_clipped(settings, encoded):
    ramp = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (16, 1))
    expected = np.rint(ramp / 257)[..., None]
    for kind in ("PNG", "TIFF"):
        assert (decode_image(encoded(Image.fromarray(ramp), kind), settings(channels=1)) == expected).all()


def test_floats_in_the_unit_interval_are_scaled_and_others_refused(settings, encoded, reason):
    ramp = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (16, 1))
    assert (decode_image(encoded(Image.fromarray(ramp), "TIFF"), settings())[0, :, 0] == np.rint(ramp[0] * 255)).all()
    assert reason(encoded(Image.fromarray(ramp * 300), "TIFF")) == "out_of_range"
    assert reason(encoded(Image.fromarray(ramp * np.nan), "TIFF")) == "out_of_range"
    assert reason(encoded(Image.fromarray(np.full((16, 16), 70000, np.int32)), "TIFF")) == "out_of_range"


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_half_transparent_black_shows_half_of_the_background(mode, settings, encoded):
    black = (0, 128) if mode == "LA" else (0, 0, 0, 128)
    pixels = decode_image(encoded(Image.new(mode, (16, 16), black), "PNG"), settings(background=(255, 0, 100)))
    assert is_close(pixels, np.array([127, 0, 50]), 1)


def test_transparent_palette_entry_and_transparent_grey_become_background(settings, encoded):
    palette = Image.new("P", (16, 16), 3)
    palette.putpalette([10, 20, 30] * 8)
    for image in (palette, Image.new("L", (16, 16), 3)):
        assert (decode_image(encoded(image, "PNG", transparency=3), settings(background=(1, 2, 3))) == (1, 2, 3)).all()
        assert not (decode_image(encoded(image, "PNG"), settings(background=(1, 2, 3))) == (1, 2, 3)).all()


def test_colours_of_transparent_pixels_do_not_bleed_when_resized(settings, encoded):
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image.paste((255, 255, 255, 255), (0, 0, 32, 64))
    assert decode_image(encoded(image, "PNG"), settings()).min() >= 254


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind, settings, encoded):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert is_close(decode_image(data, settings()), np.array([255, 0, 0]), 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_file_cut_in_half_is_refused(kind, encoded, reason):
    data = encoded(Image.effect_noise((128, 128), 80).convert("RGB"), kind)
    assert reason(data[: len(data) // 2]) in ("truncated", "corrupt")
    assert reason(data[:20]) in ("truncated", "corrupt", "not_an_image")


def test_text_and_empty_files_are_not_images(reason):
    assert reason(b"hello, I am called cat.jpg") == "not_an_image"
    assert reason(b"") == "empty"


def test_small_images_are_refused_unless_upscale_is_on(settings, encoded, reason):
    dot = encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")
    assert reason(dot) == "too_small"
    assert reason(encoded(Image.new("RGB", (400, 15)), "PNG")) == "too_small"
    assert (decode_image(dot, settings(upscale=True)) == (9, 8, 7)).all()


@pytest.mark.parametrize(("width", "height"), [(9500, 9500), (60_000, 60_000)])
def test_decompression_bombs_are_refused_by_their_header(width, height, reason):
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reason(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"")) == "too_large"


def test_lab_is_converted(settings, encoded):
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    image = ImageCms.applyTransform(Image.new("RGB", (16, 16), "red"), lab)
    assert is_close(decode_image(encoded(image, "TIFF"), settings()), np.array([255, 0, 0]), 6)
    assert is_close(decode_image(encoded(image, "TIFF"), settings(channels=1)), np.array([76]), 6)


def test_importing_the_component_does_not_change_pillow():
    probe = (
        "from PIL import Image, ImageFile\n"
        "state = lambda: (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, dict(Image.OPEN))\n"
        f"before = state(); import {module.__name__}; assert state() == before"
    )
    subprocess.run([sys.executable, "-c", probe], check=True)

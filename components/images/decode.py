"""From the bytes of an image file to the pixels that every model sees. The rules, by version DECODING_RULES:

1. JPEG (and MPO), PNG, WebP, BMP, GIF and TIFF are read, by content and not by name; of an animation, the first frame.
2. 16-bit grayscale is divided by 257. 32-bit integers must lie in 0..65535 and are divided by 257 too; floats must lie
   in 0..1 and are multiplied by 255. Colour profiles are not applied: CMYK is converted by Pillow's plain formula.
3. Transparent pixels are composited over config.background before any resize, so that the colours of fully transparent
   pixels do not bleed into their neighbours.
4. The largest centred square is resized to image_size by an antialiased Lanczos filter; JPEGs are first decoded at the
   smallest scale that leaves twice that side.
5. The EXIF orientation is applied; an orientation that cannot be read counts as none.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from components.images.config import PixelConfig

DECODING_RULES = 1
"""Version of the rules above: part of a snapshot's digest, because another rule gives other pixels."""

MAX_PIXELS = 89_478_485
"""Most pixels per image (Pillow's own limit): a larger one is a decompression bomb, or exhausts a worker's memory."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# First bytes of each format: they distinguish a damaged image from a file that is not an image.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\x00", b"MM\x00*")
_ORIENTATION_TAG = 0x0112  # EXIF
_UPRIGHT = {  # orientation 1, upright, needs nothing
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImage(Exception):
    """An image that cannot be used, however often it is read: it becomes a row of the rejects table."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        """Short name that rejects are counted by: empty, not_an_image, truncated, corrupt, too_large, ..."""
        self.detail = detail
        """Details for finding the cause."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def decode_image(data: bytes, config: PixelConfig) -> np.ndarray:
    """Pixels of an image file, uint8 (image_size, image_size, channels); raises UnusableImage."""
    try:
        with _open_image(data) as image:
            _check_size(image, config)
            image.draft(None, (2 * config.image_size, 2 * config.image_size))  # rule 4: JPEGs only
            image.load()
            pixels = _cropped(_to_eight_bit_colour(image, config), config.image_size)
            pixels = pixels.transpose(turn) if (turn := _UPRIGHT.get(_orientation(image))) is not None else pixels
    except (UnusableImage, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise many types; the bytes alone decide, so the image is unusable
        reason = "truncated" if "truncated" in str(error) else "corrupt"
        raise UnusableImage(reason, f"{type(error).__name__}: {error}") from error
    return np.asarray(pixels).reshape(config.image_size, config.image_size, config.channels)


def _open_image(data: bytes) -> Image.Image:
    if not data:
        raise UnusableImage("empty", "the file has 0 bytes")
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        reason = "corrupt" if data.startswith(_SIGNATURES) else "not_an_image"
        detail = f"none of {', '.join(_FORMATS)} can open its {len(data)} bytes, which begin with {data[:8].hex()}"
        raise UnusableImage(reason, detail) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImage("too_large", str(error)) from error


def _check_size(image: Image.Image, config: PixelConfig) -> None:
    """Raise UnusableImage by the size in the header, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImage("too_large", f"{width}x{height} pixels, at most {MAX_PIXELS} are decoded")
    if min(width, height) < config.image_size and not config.upscale:
        detail = f"{width}x{height} pixels, both sides must be at least {config.image_size} unless images.upscale is on"
        raise UnusableImage("too_small", detail)


def _to_eight_bit_colour(image: Image.Image, config: PixelConfig) -> Image.Image:
    """The image as 8-bit RGB or grayscale without transparency."""
    mode = "L" if config.channels == 1 else "RGB"
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bit(image)
    elif image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*config.background, 255))
        image = Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    elif image.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Rule 2, for floats and integers of more than 8 bits."""
    values = np.asarray(image).astype(np.float64)  # (height, width)
    white = 1.0 if image.mode == "F" else 65535.0
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= white):  # in this form, NaN is refused too
        raise UnusableImage(
            "out_of_range", f"values of mode {image.mode} must lie in 0..{white:g}, got {low:g}..{high:g}"
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))


def _cropped(image: Image.Image, side: int) -> Image.Image:
    """Rule 4: the largest centred square, resized."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    box = (left, top, left + short, top + short)
    # The gap lets Pillow reduce by an integer factor first, down to 3 times `side`: faster, nearly the same pixels.
    return image.resize((side, side), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # the pixels may be fine although the EXIF block is broken
        return 1

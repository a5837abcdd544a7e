"""Settings of a dataset: where its images come from, and how their files become pixels."""

from dataclasses import dataclass, field
from typing import Literal

from components.config import Execution, require

IMAGES_VERSION = 4

SourceName = Literal["digits", "folder", "files", "webdataset", "parquet", "inventory"]
"""Names of the sources that components/images/sources/registry.py lists."""
SOURCE_SUMMARIES: dict[SourceName, str] = {
    "digits": "scikit-learn's bundled handwritten digits",
    "folder": "one folder per class, or images without classes",
    "files": "any tree",
    "webdataset": "tars",
    "parquet": "tables",
    "inventory": "a table of what a bucket holds",
}
"""What each source is, in a few words, for the help of the command line."""
BUNDLED_SOURCES: tuple[SourceName, ...] = ("digits",)
"""Sources that bring their own images and take no uri."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Moved or mirrored copies of training images; each is a row of the snapshot, fixed by (seed, key, copy)."""

    copies: int = 1
    """Rows per training image, the untouched original (copy 0) included; 1 augments nothing."""
    degrees: float = 0.0
    """Largest rotation in degrees, in either direction."""
    scale: float = 0.0
    """Largest change of size: copies are scaled by factors from 1 / (1 + scale) to 1 + scale."""
    shift: float = 0.0
    """Largest translation along each axis, as a fraction of that side."""
    flip: bool = False
    """Whether copies are mirrored left to right: half of them, by the hash of (seed, key, copy); where nothing else is
    changed, exactly the odd ones, so that copies=2 is each image and its mirror image. Wrong for text and digits."""

    def __post_init__(self) -> None:
        require(self.copies >= 1, f"copies must be at least 1, got {self.copies}")
        for name in ("degrees", "scale", "shift"):
            require(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        require(
            not self.flip or self.copies >= 2,
            f"copies must be at least 2 with flip, got {self.copies}: copy 0 is the image as it is",
        )

    @property
    def moves(self) -> bool:
        """Whether copies are rotated, scaled or shifted."""
        return max(self.degrees, self.scale, self.shift) > 0


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """How the file of an image becomes pixels: all that decoding needs, whatever the source."""

    image_size: int
    """Side in pixels after the resize of the short side and the centre crop."""
    channels: Literal[1, 3] = 3
    """3 for RGB, 1 for grayscale."""
    upscale: bool = False
    """Whether an image smaller than image_size is enlarged; otherwise it is rejected."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour behind transparent pixels."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        require(self.image_size >= 8, f"image_size must be at least 8, got {self.image_size}")
        require(
            all(0 <= c <= 255 for c in self.background),
            f"background must be three numbers in 0..255, got {self.background}",
        )


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Where images come from and which of them are held out."""

    source: SourceName
    """digits: scikit-learn's bundled handwritten digits; folder: a tree with one folder per class, or images directly
    in `uri`; files: any tree, with or without a table of labels; webdataset: tar shards; parquet: tables that hold
    encoded images; inventory: CSV or Parquet tables with a row per image file (key, uri or bucket, size, etag), as
    object stores write them: nothing is listed. Images without labels make a model without classes."""
    uri: str | None = None
    """Location of the images: a path, s3://bucket/prefix or any fsspec URL; None for a bundled source only."""
    labels: str | None = None
    """CSV or Parquet table with the labels of source 'files'; None when images have no labels."""
    key_column: str = "key"
    """Column of `labels` with each image's path relative to `uri`."""
    image_column: str = "image"
    """Column of source 'parquet' with the encoded images: binary, or struct<bytes, path> as Hugging Face writes it."""
    label_column: str = "label"
    """Column (for webdataset: field of each .json) with the label, an integer or a name; it may be absent."""
    held_out: float = 0.1
    """Fraction of the images that choose weights and are never trained on, chosen by a hash of the key: stable when the
    dataset grows. A class always keeps one image to train on."""
    test: float = 0.0
    """Fraction of the images that only the evaluation sees, chosen by the same hash; 0: it measures on the held-out
    images, which have chosen the weights."""

    inspect: bool = True
    """Whether each file is read once before anything is fitted: unusable ones are left out, and equal content is
    recognised wherever it lies. Files that an earlier snapshot read and that did not change are not read again. False
    leaves both to encoding: a snapshot costs no more than a listing, and size and etag stand for an image's content."""

    def __post_init__(self) -> None:
        require(
            self.source in BUNDLED_SOURCES or bool(self.uri),
            f"images.uri must name the folder when source is '{self.source}', got nothing: set it to a path or an "
            "s3:// URL",
        )
        require(
            self.source not in BUNDLED_SOURCES or self.uri is None,
            f"images.uri must be left out when source is '{self.source}', got {self.uri!r}",
        )
        require(
            self.source == "files" or self.labels is None,
            f"images.labels must be left out unless source is 'files', got {self.labels!r}",
        )
        require(0 < self.held_out < 1, f"held_out must lie in (0, 1), got {self.held_out}")
        require(
            0 <= self.test < 1 - self.held_out,
            f"test must not be negative and must leave images to train on beside held_out={self.held_out}, got "
            f"{self.test}",
        )


@dataclass(frozen=True, kw_only=True)
class ImagesExecution(Execution):
    """How a snapshot is taken."""

    max_rejects: float = 0.01
    """Largest fraction of unusable files; above it the step fails with the reasons."""

    def __post_init__(self) -> None:
        require(0 <= self.max_rejects <= 1, f"max_rejects must lie in [0, 1], got {self.max_rejects}")


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(ImagesExecution, PixelConfig, SourceConfig):
    """The section `images`."""

    def __post_init__(self) -> None:
        SourceConfig.__post_init__(self)
        PixelConfig.__post_init__(self)
        ImagesExecution.__post_init__(self)

"""Single image files on a command line: listing them, and reading their pixels for a tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from components.errors import StorageError, UsageError
from components.images.config import PixelConfig
from components.images.decode import UnusableImage, decode_image
from components.pictures import Pixels
from components.store import objects
from components.tokenizer.stored import TokenizerDescription
from pipeline.config_files import load_config
from pipeline.models import is_config


class ImageFile(NamedTuple):
    """One image file: name for messages and location."""

    name: str
    uri: str


def pixel_config_of(description: TokenizerDescription) -> PixelConfig:
    """How files become pixels for a tokenizer; small images are enlarged."""
    channels: Literal[1, 3] = 1 if description.channels == 1 else 3
    return PixelConfig(image_size=description.image_size, channels=channels, upscale=True)


def check_outside_images(source: str, overrides: Sequence[str], out: str) -> None:
    """Raise UsageError when `out` lies below the images of the config `source`, whose next run would train on it.

    Nothing is known of the images of a registered model.
    """
    if not is_config(source):
        return
    uri = load_config(source, overrides).images.uri
    if uri and objects.is_local(uri) and Path(out).resolve().is_relative_to(objects.local_path(uri).resolve()):
        raise UsageError(
            f"--out must not lie in images.uri={uri}, where the next run would train on it, got {out}: give a place "
            "outside by --out"
        )


def list_image_files(path: str) -> list[ImageFile]:
    """The file `path`, or every file below the folder `path` that is not hidden; raises UsageError without any."""
    uri = objects.absolute(path)
    listed = [
        ImageFile(stored.path, stored.uri)
        for stored in objects.list_objects(uri)
        if not any(part.startswith(".") for part in stored.path.split("/"))
    ]
    if listed:
        return listed
    if objects.is_local(uri) and not Path(uri).is_file():
        what = "an empty folder" if Path(uri).is_dir() else "nothing"
        raise UsageError(f"{path} must be an image file or a folder with image files, found {what}")
    return [ImageFile(uri.rsplit("/", 1)[-1], uri)]


def read_image_files(files: Sequence[ImageFile], config: PixelConfig) -> tuple[list[str], Pixels]:
    """Names and pixels uint8 (n, h, w, c) of the images that can be read; the others are printed with the reason."""
    names, pixels = [], []
    for file in files:
        try:
            pixels.append(decode_image(objects.read_bytes(file.uri), config))
            names.append(file.name)
        except (UnusableImage, StorageError, FileNotFoundError) as error:
            print(f"  skipped  {file.name}: {error}")
    empty = np.empty((0, config.image_size, config.image_size, config.channels), np.uint8)
    return names, np.stack(pixels) if pixels else empty


def model_device() -> str:
    """Device on which a verb computes: the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"

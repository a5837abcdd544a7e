"""`reconstruct`: image files encoded and decoded, beside the originals."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.errors import UsageError
from components.images.tensors import to_images, to_pixels
from components.pictures import reconstruction_grid
from components.tokenizer.model import Tokenizer
from components.tokenizer.psnr import psnr_per_image
from components.tokenizer.stored import describe_tokenizer, load_tokenizer
from pipeline.models import find_model
from pipeline.verbs.image_files import (
    check_outside_images,
    list_image_files,
    model_device,
    pixel_config_of,
    read_image_files,
)

ENCODED_PER_CHUNK = 64
"""Images encoded at a time."""
MAX_IMAGES_SHOWN = 100
"""Images in the picture; every image gets its line of figures."""
WHITE = 255.0
"""Largest value of a pixel."""


def reconstruct_images(options: argparse.Namespace) -> int:
    """Encode and decode image files; write originals above reconstructions and print how close they are."""
    check_outside_images(options.model, options.overrides, options.out)
    files = list_image_files(options.images)
    with find_model(options.model, options.overrides, options.state, "tokenizer") as model:
        description = describe_tokenizer(model.parts["tokenizer"])
        tokenizer = load_tokenizer(model.parts["tokenizer"]).to(model_device())
    config = pixel_config_of(description)
    names, pixels = read_image_files(files, config)
    if not names:
        raise UsageError(f"{options.images} must hold at least one readable image, got none of {len(files)} files")
    print(f"{model.title}: {len(names)} images at {config.image_size}x{config.image_size}")
    originals = torch.from_numpy(pixels)  # uint8 (n, h, w, c)
    decoded = torch.cat([_reconstruct(tokenizer, chunk) for chunk in originals.split(ENCODED_PER_CHUNK)])
    for name, decibels in zip(names, psnr_per_image(decoded, originals, peak=WHITE).tolist(), strict=True):
        print(f"  {decibels:5.1f} dB  {name}")
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(reconstruction_grid(pixels[:MAX_IMAGES_SHOWN], np.asarray(decoded[:MAX_IMAGES_SHOWN])))
    print(f"{out}" + (f" (the first {MAX_IMAGES_SHOWN})" if len(names) > MAX_IMAGES_SHOWN else ""))
    return 0


@torch.no_grad()
def _reconstruct(tokenizer: Tokenizer, pixels: Tensor) -> Tensor:
    """Pixels uint8 (n, h, w, c) encoded and decoded, the same shape, in main memory."""
    return to_pixels(tokenizer.decode(tokenizer.encode(to_images(pixels).to(model_device())))).cpu()

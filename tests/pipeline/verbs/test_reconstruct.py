"""`reconstruct`: originals above their reconstructions, and their PSNR."""

import numpy as np
import pytest
import torch
from PIL import Image

from components.errors import UsageError
from components.images.tensors import to_images, to_pixels
from components.tokenizer.psnr import psnr
from components.tokenizer.stored import load_tokenizer
from pipeline.verbs.reconstruct import reconstruct_images


@pytest.mark.parametrize("model", ["finished-tokenizer", None])
def test_reconstructions_are_those_of_the_tokenizer(
    finished, generator_folders, options, pictures, tmp_path, capsys, model
):
    assert reconstruct_images(options("reconstruct", model=model or finished[0])) == 0
    out = capsys.readouterr().out
    assert "skipped  cut.png: truncated" in out and "skipped  notes.txt: not_an_image" in out
    tokenizer = load_tokenizer(generator_folders["tokenizer"])
    with Image.open(pictures / "a.png") as image:
        original = np.asarray(image.resize((16, 16), Image.Resampling.LANCZOS, box=(0, 8, 24, 32), reducing_gap=3.0))[
            :, :, None
        ]
    decoded = to_pixels(tokenizer.decode(tokenizer.encode(to_images(torch.from_numpy(original[None].copy())))))
    assert (
        f"{psnr(decoded, torch.from_numpy(original[None].copy()), peak=255).item():5.1f} dB  a.png" in out
        and "dB  deep/b.jpg" in out
    )
    with Image.open(tmp_path / "out" / "look.png") as picture:
        assert picture.width > 2 * 16


def test_a_single_file_can_be_reconstructed(finished, options, pictures, capsys):
    assert reconstruct_images(options("reconstruct", images=str(pictures / "a.png"))) == 0
    assert "dB  a.png" in capsys.readouterr().out


def test_a_path_without_images_is_reported(finished, options, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("nowhere", "found nothing"),
        ("empty", "found an empty folder"),
        ("in/notes.txt", "got none of 1 files"),
    ):
        with pytest.raises(UsageError, match=message):
            reconstruct_images(options("reconstruct", images=str(tmp_path / path)))

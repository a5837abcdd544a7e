"""The batch encoder compared with the tokenizer, and independence of an image's codes from its batch."""

import numpy as np
import pytest
import torch

from components.codes.batch_encoder import BatchEncoder
from components.images.tensors import to_images
from components.tokenizer.stored import load_tokenizer


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)


def batch_encoder(fitted, **changes) -> BatchEncoder:
    settings = {"batch_size": 8, "precision": "float32", "device": "cpu", **changes}
    return BatchEncoder(load_tokenizer(fitted.folder), **settings)


def test_codes_equal_the_tokenizers_and_errors_are_codebook_distances(fitted, pixels):
    maps, errors = batch_encoder(fitted)(pixels)
    model = load_tokenizer(fitted.folder)
    images = to_images(torch.from_numpy(pixels))
    output = model(images)
    assert all((codes == wanted.numpy()).mean() > 0.99 for codes, wanted in zip(maps, output.codes, strict=True))
    distance = float(output.commitment.detach())  # the mean over images, summed over levels
    assert errors.dtype == np.float32 and errors.mean() == pytest.approx(distance, rel=0.01)


def test_an_image_has_the_same_codes_in_any_batch(fitted, pixels):
    encode = batch_encoder(fitted)
    maps, errors = encode(pixels)
    for number in range(8):
        alone, error = encode(pixels[number : number + 1])
        assert all((single[0] == batched[number]).all() for single, batched in zip(alone, maps, strict=True))
        assert error[0] == errors[number]


def test_every_batch_has_the_same_shape(fitted, pixels, monkeypatch):
    encode, shapes = batch_encoder(fitted), []
    model = encode._model
    run = model.encode_with_error
    monkeypatch.setattr(model, "encode_with_error", lambda images: shapes.append(tuple(images.shape)) or run(images))
    for count in (8, 3, 1):
        assert len(encode(pixels[:count])[1]) == count
    assert set(shapes) == {(8, 1, 16, 16)}
    with pytest.raises(ValueError, match="must hold 1 to 8 images, got 9"):
        encode(np.concatenate([pixels, pixels[:1]]))


def test_bfloat16_gives_nearly_the_same_codes(fitted, pixels):
    full, half = batch_encoder(fitted)(pixels)[0], batch_encoder(fitted, precision="bfloat16")(pixels)[0]
    assert all((exact == coarse).mean() > 0.6 for exact, coarse in zip(full, half, strict=True))

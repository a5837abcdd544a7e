"""The registered tokenizer, called the way MLflow calls it."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from components import serving
from components.images.tensors import to_images


@pytest.fixture(scope="module")
def served_tokenizer(generator_folders):
    from components.tokenizer.served import ServedTokenizer

    model = ServedTokenizer()
    model.load_context(SimpleNamespace(artifacts={"tokenizer": str(generator_folders["tokenizer"])}))
    return model


def test_the_served_tokenizer_answers_with_codes_and_reconstructions(generator, served_tokenizer):
    pixels = torch.randint(0, 256, (2, 16, 16, 1), dtype=torch.uint8)
    answers = served_tokenizer.predict(None, [serving.image_to_base64(image) for image in pixels.numpy()])
    top, bottom = generator.tokenizer.encode(to_images(pixels))
    assert [answer.codes for answer in answers] == [
        {"top": above, "bottom": below} for above, below in zip(top.tolist(), bottom.tolist(), strict=True)
    ]
    assert decode_base64_png(answers[0].reconstruction).shape == (16, 16)


def test_the_served_tokenizer_leaves_out_reconstructions_on_request(served_tokenizer):
    from components.tokenizer.served import tokenizer_example

    answer = served_tokenizer.predict(None, tokenizer_example(served_tokenizer.description), {"reconstruct": False})[0]
    assert answer.reconstruction is None and len(answer.codes["bottom"]) == 4


def test_the_package_of_a_tokenizer_holds_what_its_model_needs(generator_folders, served_tokenizer):
    from components.tokenizer.served import tokenizer_package

    package = tokenizer_package(generator_folders["tokenizer"])
    assert package.folders == {"tokenizer": generator_folders["tokenizer"]}
    answer = served_tokenizer.predict(None, package.example, dict(package.parameters))[0]
    assert answer.reconstruction is not None and list(answer.codes) == ["top", "bottom"]
    assert (package.code.name, package.requirements) == ("served.py", serving.served_requirements())


def decode_base64_png(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))

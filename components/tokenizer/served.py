"""The registered tokenizer: images -> code maps and reconstructions. MLflow runs this file as the model's code.

predict([base64 of a PNG or JPEG, ...], params={"reconstruct": True})
-> [{"codes": {"top": [[...], ...], "bottom": ...}, "reconstruction": base64 of a PNG}, ...]

It computes in float32. A dataset that was encoded with `codes.precision: bfloat16` has other codes for some positions,
at an equal error; its manifest and `python -m pipeline show` say for how many.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel

from components.images.tensors import to_images, to_pixels
from components.pictures import Pixels
from components.serving import image_from_base64, image_to_base64, served_requirements, with_defaults
from components.tokenizer.stored import TokenizerDescription, describe_tokenizer, load_tokenizer

if TYPE_CHECKING:
    from components.tracking.registry import ModelPackage

TOKENIZER_PARAMETERS = {"reconstruct": True}
"""Parameters of predict and their defaults."""
IMAGES_PER_BATCH = 64
"""Images encoded at a time."""
GRAY = 128
"""Value of every pixel in the example."""


def tokenizer_example(description: TokenizerDescription) -> list[str]:
    """A gray image that the tokenizer accepts."""
    size = description.image_size
    return [image_to_base64(np.full((size, size, description.channels), GRAY, np.uint8))]


def tokenizer_package(folder: Path) -> "ModelPackage":
    """The tokenizer stored in `folder`, ready for the model registry."""
    from components.tracking.registry import ModelPackage  # only the pipeline packs models; a container does not

    return ModelPackage(
        code=Path(__file__),
        folders={"tokenizer": folder},
        example=tokenizer_example(describe_tokenizer(folder)),
        parameters=TOKENIZER_PARAMETERS,
        requirements=served_requirements(),
    )


class EncodedImage(BaseModel):
    """The answer for one image."""

    codes: dict[str, list[list[int]]]
    """Rows of the code map, by level."""
    reconstruction: str | None = None
    """Base64 of a PNG; None unless it was requested."""


class ServedTokenizer(PythonModel):
    """Its one MLflow artifact is `tokenizer`, a folder that components/tokenizer/stored.py reads."""

    def load_context(self, context: PythonModelContext) -> None:
        folder = Path(context.artifacts["tokenizer"])
        self.description, self.tokenizer = describe_tokenizer(folder), load_tokenizer(folder)

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> list[EncodedImage]:
        """Code maps by level, and the reconstruction unless `reconstruct` is false."""
        try:
            options = with_defaults(params, TOKENIZER_PARAMETERS)
            size, channels = self.description.image_size, self.description.channels
            images = [image_from_base64(text, size=size, channels=channels) for text in model_input]
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        answers: list[EncodedImage] = []
        for start in range(0, len(images), IMAGES_PER_BATCH):
            batch = np.stack(images[start : start + IMAGES_PER_BATCH])
            answers += self._encode_batch(batch, reconstruct=bool(options["reconstruct"]))
        return answers

    @torch.no_grad()
    def _encode_batch(self, pixels: Pixels, *, reconstruct: bool) -> list[EncodedImage]:
        """Answers for pixels (n, h, w, c)."""
        maps = self.tokenizer.encode(to_images(torch.from_numpy(pixels)))  # (n, h, w) per level
        names = [level.name for level in self.description.architecture.levels]
        rows = [level.tolist() for level in maps]  # per level, per image: rows of codes
        codes = [dict(zip(names, image, strict=True)) for image in zip(*rows, strict=True)]  # per image: level -> rows
        if not reconstruct:
            return [EncodedImage(codes=image) for image in codes]
        pictures = [image_to_base64(image) for image in to_pixels(self.tokenizer.decode(maps)).numpy()]
        return [EncodedImage(codes=image, reconstruction=png) for image, png in zip(codes, pictures, strict=True)]


mlflow.models.set_model(ServedTokenizer())

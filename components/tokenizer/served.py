"""The registered tokenizer: images -> code maps and reconstructions. MLflow runs this file as the model's code.

predict([base64 of a PNG or JPEG, ...], params={"reconstruct": True})
-> [{"codes": {"top": [[...], ...], "bottom": ...}, "reconstruction": base64 of a PNG}, ...]
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel

from components.serving import image_from_base64, image_to_base64, with_defaults
from components.store.weights import TokenizerDescription, describe_tokenizer, load_tokenizer
from components.tokenizer.model import to_images, to_pixels

TOKENIZER_PARAMETERS = {"reconstruct": True}
"""Parameters of predict and their defaults."""
IMAGES_PER_BATCH = 64
"""Images encoded at a time."""


def tokenizer_example(description: TokenizerDescription) -> list[str]:
    """A gray image that the tokenizer accepts."""
    size = description.image_size
    return [image_to_base64(np.full((size, size, description.channels), 128, np.uint8))]


class EncodedImage(BaseModel):
    """One image."""

    codes: dict[str, list[list[int]]]
    """Rows of the code map, by level."""
    reconstruction: str | None = None
    """Base64 of a PNG; None where none was asked for."""


class ServedTokenizer(PythonModel):
    """Artifacts: `tokenizer`, the folder that components/weights.py reads."""

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
            answers += self._answer(np.stack(images[start : start + IMAGES_PER_BATCH]), bool(options["reconstruct"]))
        return answers

    @torch.no_grad()
    def _answer(self, pixels: np.ndarray, reconstruct: bool) -> list[EncodedImage]:
        maps = self.tokenizer.encode(to_images(torch.from_numpy(pixels)))
        names = [level.name for level in self.description.settings.levels]
        levels = [level.tolist() for level in maps]
        codes = [dict(zip(names, each, strict=True)) for each in zip(*levels, strict=True)]
        if not reconstruct:
            return [EncodedImage(codes=each) for each in codes]
        pictures = [image_to_base64(image) for image in to_pixels(self.tokenizer.decode(maps)).numpy()]
        return [EncodedImage(codes=each, reconstruction=png) for each, png in zip(codes, pictures, strict=True)]


mlflow.models.set_model(ServedTokenizer())

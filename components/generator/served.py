"""The registered generator: class -> images. MLflow runs this file as the model's code.

predict([{"label": "7"}], params={"count": 4, "seed": 0, "temperature": 1.0, "keep": 0.25})
-> [{"label": "7", "png": base64, "probability": 0.99}, ...]  `count` answers per request, in the requests' order
"""

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, ConfigDict

from components.classifier.stored import describe_classifier
from components.config import require
from components.generator.config import GeneratorConfig
from components.generator.rejection import draws_needed, generate_samples
from components.generator.stored import load_generator
from components.serving import ParameterValue, image_to_base64, served_requirements, with_defaults
from components.tokenizer.stored import describe_tokenizer

if TYPE_CHECKING:
    from components.tracking.registry import ModelPackage

MAX_DRAWS = 4096
"""Most draws per request: more would keep a server busy for one client."""
CLASS_NAMES_LISTED = 10
"""Class names listed in the error about an unknown class."""


def served_parameters(config: GeneratorConfig) -> dict[str, ParameterValue]:
    """Parameters of predict and their defaults: images per request, seed, fraction kept, how codes are drawn."""
    return {"count": 1, "seed": 0, "keep": config.keep, **asdict(config.sampling)}


def generator_example(classes: tuple[str, ...]) -> list[dict[str, str]]:
    """One image of the first class."""
    return [{"label": classes[0]}]


def generator_package(folder: Path, config: GeneratorConfig) -> "ModelPackage":
    """The generator in `folder`, one folder per part, ready for the model registry; `config` gives the defaults."""
    from components.tracking.registry import ModelPackage  # only the pipeline packs models; a container does not

    levels = describe_tokenizer(folder / "tokenizer").architecture.levels
    parts = ["tokenizer", *(f"prior_{level.name}" for level in levels), "classifier"]
    return ModelPackage(
        code=Path(__file__),
        folders={part: folder / part for part in parts},
        example=generator_example(describe_classifier(folder / "classifier").class_names),
        parameters=served_parameters(config),
        requirements=served_requirements(),
    )


class SampleRequest(BaseModel):
    """Which class to draw."""

    model_config = ConfigDict(extra="forbid")

    label: str
    """Name of a class, or its number as text."""


class GeneratedImage(BaseModel):
    """One image."""

    label: str
    """As in the request."""
    png: str
    """Base64 of a PNG."""
    probability: float
    """The rejecting classifier's probability that the image shows this class."""


class ServedGenerator(PythonModel):
    """Artifacts: the folders that `load_generator` reads: `tokenizer`, `classifier`, one `prior_<level>` per level."""

    def load_context(self, context: PythonModelContext) -> None:
        self.generator = load_generator({name: Path(folder) for name, folder in context.artifacts.items()})

    def predict(
        self, context: Any, model_input: list[SampleRequest], params: dict[str, Any] | None = None
    ) -> list[GeneratedImage]:
        """`count` images per request. The same class, parameters and seed give the same images."""
        try:
            options = with_defaults(params, served_parameters(GeneratorConfig()))
            config = _config_of(options)
            count, seed = int(options["count"]), int(options["seed"])
            return [image for request in model_input for image in self._draw(request.label, count, seed, config)]
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _draw(self, label: str, count: int, seed: int, config: GeneratorConfig) -> list[GeneratedImage]:
        draws = draws_needed(count, config.keep)
        fits = draws <= MAX_DRAWS
        require(fits, f"count / keep must be at most {MAX_DRAWS} draws per request, got {draws}: send several requests")
        samples = generate_samples(
            self.generator,
            classes=[self._class_number(label)],
            count=count,
            seed=seed,
            sampling=config.sampling,
            keep=config.keep,
        )
        pictures = zip(samples.pixels.numpy(), samples.probability.tolist(), strict=True)
        return [GeneratedImage(label=label, png=image_to_base64(image), probability=score) for image, score in pictures]

    def _class_number(self, label: str) -> int:
        names = self.generator.classes
        if label in names:
            return names.index(label)
        is_number = label.isdecimal() and int(label) < len(names)
        shown = ", ".join(names[:CLASS_NAMES_LISTED]) + (", ..." if len(names) > CLASS_NAMES_LISTED else "")
        require(is_number, f"label must be a class ({shown}) or its number 0 .. {len(names) - 1}, got {label!r}")
        return int(label)


def _config_of(options: dict[str, ParameterValue]) -> GeneratorConfig:
    settings: dict[str, Any] = {each.name: options[each.name] for each in dataclasses.fields(GeneratorConfig)}
    return GeneratorConfig(**settings)


mlflow.models.set_model(ServedGenerator())

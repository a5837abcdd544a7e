"""The registered generator: class -> images. MLflow runs this file as the model's code.

predict([{"label": "7"}], params={"count": 4, "seed": 0, "temperature": 1.0, "keep": 0.25})
-> [{"label": "7", "png": base64, "probability": 0.99}, ...]  `count` answers per request, in the requests' order

A generator that was fitted without classes needs no label, predict([{}]), and ignores the one that it gets. Without a
classifier (fewer than two classes) every probability is 1 and `keep` is ignored.
"""

import dataclasses
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, ConfigDict

from components.classifier.stored import describe_classifier, load_rejector
from components.config import require
from components.generator.config import GeneratorConfig
from components.generator.rejection import draws_needed, generate_samples, kept_share
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
    """One image of the first class, or one image without a class."""
    return [{"label": classes[0]}] if classes else [{}]


def generator_package(folder: Path, config: GeneratorConfig) -> "ModelPackage":
    """The generator in `folder`, one folder per part, ready for the model registry; `config` gives the defaults."""
    from components.tracking.registry import ModelPackage  # only the pipeline packs models; a container does not

    levels = describe_tokenizer(folder / "tokenizer").architecture.levels
    parts = ["tokenizer", *(f"prior_{level.name}" for level in levels), "classifier"]
    if load_rejector(folder / "classifier") is None:
        config = dataclasses.replace(config, keep=1.0)
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

    label: str | None = None
    """Name of a class, or its number as text; ignored where the generator has no classes."""


class GeneratedImage(BaseModel):
    """One image."""

    label: str | None
    """As in the request."""
    png: str
    """Base64 of a PNG."""
    probability: float
    """The rejecting classifier's probability that the image shows this class; 1 where there is no classifier."""


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

    def _draw(self, label: str | None, count: int, seed: int, config: GeneratorConfig) -> list[GeneratedImage]:
        draws = draws_needed(count, kept_share(self.generator, config.keep))
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

    def _class_number(self, label: str | None) -> int:
        names = self.generator.classes
        if not names:
            return 0  # the label of a generator without classes
        if label in names:
            return names.index(label)
        if label is not None and label.isdecimal() and int(label) < len(names):
            return int(label)
        shown = ", ".join(names[:CLASS_NAMES_LISTED]) + (", ..." if len(names) > CLASS_NAMES_LISTED else "")
        raise ValueError(f"label must be a class ({shown}) or its number 0 .. {len(names) - 1}, got {label!r}")


def _config_of(options: dict[str, ParameterValue]) -> GeneratorConfig:
    settings: dict[str, Any] = {each.name: options[each.name] for each in dataclasses.fields(GeneratorConfig)}
    return GeneratorConfig(**settings)


mlflow.models.set_model(ServedGenerator())

"""The registered generator: class -> images. MLflow runs this file as the model's code.

predict([{"label": "7"}], params={"count": 4, "seed": 0, "temperature": 1.0, "keep": 0.25})
-> [{"label": "7", "png": base64, "probability": 0.99}, ...]  `count` answers a request, in the requests' order
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, ConfigDict

from components.config import require
from components.generator.config import GeneratorConfig
from components.generator.rejection import draws_needed, generate_samples
from components.priors.choice import SamplingConfig
from components.serving import ParameterValue, image_to_base64, with_defaults
from components.store.weights import load_generator

MAX_DRAWS = 4096
"""Most draws for one request: more would keep a server busy for one client."""


class SampleRequest(BaseModel):
    """Which class to draw."""

    model_config = ConfigDict(extra="forbid")

    label: str
    """Name of a class, or its number as text."""


def served_parameters(config: GeneratorConfig) -> dict[str, ParameterValue]:
    """Parameters of predict and their defaults: images a request, seed, how codes are chosen, share that is kept."""
    return {"count": 1, "seed": 0, "keep": config.keep, **asdict(config.choice)}


def generator_example(classes: tuple[str, ...]) -> list[dict[str, str]]:
    """One image of the first class."""
    return [{"label": classes[0]}]


class GeneratedImage(BaseModel):
    """One image."""

    label: str
    """As it was asked for."""
    png: str
    """Base64."""
    probability: float
    """That the image shows this class, says the rejecting classifier."""


class ServedGenerator(PythonModel):
    """Artifacts: folders `tokenizer`, `classifier` and `prior_<level>` a level, that components/weights.py reads."""

    def load_context(self, context: PythonModelContext) -> None:
        self.generator = load_generator({name: Path(folder) for name, folder in context.artifacts.items()})

    def predict(
        self, context: Any, model_input: list[SampleRequest], params: dict[str, Any] | None = None
    ) -> list[GeneratedImage]:
        """`count` images a request. The same class, parameters and seed give the same images."""
        try:
            options = with_defaults(params, served_parameters(GeneratorConfig()))
            return [answer for request in model_input for answer in self._answers(request.label, options)]
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _answers(self, label: str, options: dict[str, ParameterValue]) -> list[GeneratedImage]:
        count, keep = int(options["count"]), float(options["keep"])
        draws = draws_needed(count, keep)
        fits = draws <= MAX_DRAWS
        require(fits, f"count / keep must be at most {MAX_DRAWS} draws a request, got {draws}: ask twice")
        samples = generate_samples(
            self.generator,
            classes=[self._number(label)],
            count=count,
            seed=int(options["seed"]),
            choice=_choice(options),
            keep=keep,
        )
        pictures = zip(samples.pixels.cpu().numpy(), samples.probability.tolist(), strict=True)
        return [GeneratedImage(label=label, png=image_to_base64(image), probability=score) for image, score in pictures]

    def _number(self, label: str) -> int:
        names = self.generator.classes
        if label in names:
            return names.index(label)
        known = label.isdecimal() and int(label) < len(names)
        shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        require(known, f"label must be a class ({shown}) or its number 0 .. {len(names) - 1}, got {label!r}")
        return int(label)


def _choice(options: dict[str, ParameterValue]) -> SamplingConfig:
    temperature, top_p, guidance = (float(options[name]) for name in ("temperature", "top_p", "guidance"))
    return SamplingConfig(temperature=temperature, top_k=int(options["top_k"]), top_p=top_p, guidance=guidance)


mlflow.models.set_model(ServedGenerator())

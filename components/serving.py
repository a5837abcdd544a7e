"""Shared by the two registered models: typed parameters, images as text, packages to install."""

import base64
import binascii
from collections.abc import Mapping
from importlib.metadata import version

from components.config import require
from components.pictures import Pixels, from_png, to_png

ParameterValue = bool | int | float
TEXT_SHOWN = 20
"""Characters of an image's base64 text that an error quotes."""


def served_requirements() -> list[str]:
    """Packages that a served model needs, pinned to the versions here; torch without its build ('+cpu')."""
    packages = ("mlflow", "numpy", "pillow", "pydantic", "safetensors", "torch")
    return [f"{package}=={version(package).split('+')[0]}" for package in packages]


def with_defaults(
    given: Mapping[str, ParameterValue] | None, defaults: Mapping[str, ParameterValue]
) -> dict[str, ParameterValue]:
    """`defaults` overridden by `given`; raises ValueError for a name not among the defaults or a value of another type.

    MLflow drops unknown names with a warning before a model sees them. A model that is called directly raises.
    """
    parameters = dict(defaults)
    for name, value in (given or {}).items():
        require(name in defaults, f"parameters are {sorted(defaults)}, got {name!r}: correct its spelling")
        wanted = type(defaults[name])
        fits = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
        fits = fits and (wanted is bool or not isinstance(value, bool))  # bool is a subclass of int
        require(fits, f"parameter '{name}' must be of type {wanted.__name__}, got {value!r}")
        parameters[name] = wanted(value)
    return parameters


def image_to_base64(pixels: Pixels) -> str:
    """Image uint8 (h, w, c) as base64 of a PNG."""
    return base64.b64encode(to_png(pixels)).decode()


def image_from_base64(text: str, *, size: int, channels: int) -> Pixels:
    """Image uint8 (size, size, c) from base64 of a PNG or JPEG; raises ValueError for anything else."""
    try:
        data = base64.b64decode(text, validate=True)  # without validate, other characters are skipped
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"an image must be base64 of a PNG or JPEG file, got {text[:TEXT_SHOWN]!r}...: {error}"
        ) from error
    pixels = from_png(data, channels)
    height, width = pixels.shape[:2]
    require(height == width == size, f"images must be {size}x{size} pixels, got {width}x{height}: resize it first")
    return pixels

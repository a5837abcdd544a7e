"""Feature programs and reference statistics as files: read from the paths or URIs that a config names."""

import io
from collections.abc import Sequence

from components.config import require
from components.evaluation.features.config import FeaturesConfig
from components.evaluation.features.program import DistanceProgram, FeatureProgram
from components.evaluation.measures.moments import Moments
from components.store import objects
from components.store.programs import program_digest


def load_features(config: FeaturesConfig, channels: int, image_size: int, *, device: str = "cpu") -> FeatureProgram:
    """The extractor that `config` names, tried on images of `channels` and `image_size`.

    Raises ValueError when there is no such program, when it could run code, or when it does not fit.
    """
    program = FeatureProgram(_read(config.program, f"program of {config.name!r}"), config, device=device)
    program.check(image_size, channels)
    return program


def load_distance(uri: str, channels: int, image_size: int, *, device: str = "cpu") -> DistanceProgram:
    """The distance of two images that `uri` names (evaluation.lpips); raises as `load_features` does."""
    program = DistanceProgram(_read(uri, "program of lpips"), device=device)
    program.check(image_size, channels)
    return program


def read_program_digest(config: FeaturesConfig) -> str:
    """SHA-256 of the program's file, which identifies the features in a table of results."""
    return program_digest(_read(config.program, f"program of {config.name!r}"))


def evaluation_programs(features: Sequence[FeaturesConfig], lpips: str | None) -> dict[str, str]:
    """SHA-256 of every file that the evaluation reads by these settings, by its name in the config."""
    files = {each.program for each in features} | {each.statistics for each in features if each.statistics}
    files |= {lpips} if lpips else set()
    return {uri: program_digest(_read(uri, "file")) for uri in sorted(files)}


def read_statistics(config: FeaturesConfig, features: int) -> Moments | None:
    """The reference statistics that `config` names, None without; ValueError unless they are of so many `features`."""
    if config.statistics is None:
        return None
    moments = Moments.from_npz(io.BytesIO(_read(config.statistics, f"statistics of {config.name!r}")))
    width = moments.mean.numel()
    require(
        width == features,
        f"the statistics of features {config.name!r} must be of the program's {features} features, got {width}: make "
        "them with this program",
    )
    return moments


def _read(uri: str, what: str) -> bytes:
    try:
        return objects.read_bytes(objects.absolute(uri))
    except FileNotFoundError:
        raise ValueError(f"evaluation: the {what} must be a file, found nothing at {uri}") from None

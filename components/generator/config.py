"""Settings of the generator: how it samples by default."""

import dataclasses
from dataclasses import dataclass

from components.config import require
from components.priors.config import SamplingConfig

GENERATOR_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(SamplingConfig):
    """Defaults of the registered generator (Algorithm 2, lines 10-14; section 3.3)."""

    keep: float = 1.0
    """Fraction of the draws that the classifier keeps, in (0, 1]; 1 rejects nothing."""

    def __post_init__(self) -> None:
        SamplingConfig.__post_init__(self)
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], got {self.keep}")

    @property
    def sampling(self) -> SamplingConfig:
        """How codes are drawn, without the rejection."""
        return SamplingConfig(**{each.name: getattr(self, each.name) for each in dataclasses.fields(SamplingConfig)})

"""Settings of the generator: how it samples unless asked otherwise."""

from dataclasses import dataclass

from components.config import require
from components.priors.choice import SamplingConfig

GENERATOR_VERSION = 1
"""Raised whenever the same settings would now give another result: part of every fingerprint of this step."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Defaults of the registered generator (Algorithm 2, lines 10-14; section 3.3)."""

    temperature: float = 1.0
    """Divides the logits of every prior; 1 samples the fitted distribution."""
    top_k: int = 0
    """Codes among which one is drawn, the likeliest; 0: all."""
    top_p: float = 1.0
    """The likeliest codes that together have this probability are drawn from; 1: all."""
    guidance: float = 1.0
    """How far codes follow the class: 1 as fitted; anything else needs priors fitted with label_dropout."""
    keep: float = 1.0
    """Share of the draw that the classifier keeps, in (0, 1]; 1 rejects nothing."""

    def __post_init__(self) -> None:
        _ = self.choice
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], got {self.keep}")

    @property
    def choice(self) -> SamplingConfig:
        """What is done to the logits of every prior; raises ValueError for what cannot be."""
        return SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, guidance=self.guidance)

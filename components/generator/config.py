"""Settings of the generator: how it samples unless asked otherwise."""

from dataclasses import dataclass

from components.config import require

VERSION = 1
"""Raised whenever the same settings would now give another result: part of every fingerprint of this step."""


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Defaults of the registered generator (Algorithm 2, lines 10-14; section 3.3)."""

    temperature: float = 1.0
    """Divides the logits of every prior; 1 samples the fitted distribution."""
    keep: float = 1.0
    """Share of the draw that the classifier keeps, in (0, 1]; 1 rejects nothing."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"temperature must be above 0, got {self.temperature}")
        require(0 < self.keep <= 1, f"keep must lie in (0, 1], got {self.keep}")

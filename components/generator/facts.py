"""What the generator step tells about its defaults."""

from dataclasses import dataclass

from components.artifacts import Facts
from components.generator.config import GeneratorConfig


@dataclass(frozen=True, kw_only=True)
class GeneratorFacts(GeneratorConfig, Facts):
    """How the generator samples unless asked otherwise: the settings of its config, one fact each."""

    parts: int = 0
    """Models it is made of."""

    def headline(self) -> str:
        """Its defaults."""
        return f"{self.parts} models; temperature {self.temperature:g}, keeps the best {self.keep:.0%} by default"

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
        rejection = f"keeps the best {self.keep:.0%}" if self.keep < 1 else "rejects nothing"
        return f"{self.parts} models; by default temperature {self.temperature:g}, {rejection}"

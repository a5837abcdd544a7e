"""Facts of the generator."""

from dataclasses import dataclass

from components.artifacts import Facts
from components.generator.config import GeneratorConfig


@dataclass(frozen=True, kw_only=True)
class GeneratorFacts(GeneratorConfig, Facts):
    """How the generator samples by default: each setting of its config is a fact."""

    parts: int = 0
    """Number of models that it consists of."""

    def headline(self) -> str:
        """Its models and its defaults."""
        guidance = f", guidance {self.guidance:g}" if self.guidance != 1 else ""
        rejection = f"keeps the best {self.keep:.0%}" if self.keep < 1 else "rejects nothing"
        return f"{self.parts} models; by default temperature {self.temperature:g}{guidance}, {rejection}"

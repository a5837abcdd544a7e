"""What the generator step tells about its defaults."""

from dataclasses import dataclass

from components.artifacts import Facts
from components.priors.config import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class GeneratorFacts(Facts):
    """How the generator samples unless asked otherwise."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    keep: float = 1.0
    """Fraction of the draws that the classifier keeps."""
    parts: int = 0
    """Models it is made of."""

    @property
    def sampling(self) -> SamplingConfig:
        """How codes are drawn."""
        return SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, guidance=self.guidance)

    def headline(self) -> str:
        """Its defaults."""
        return f"{self.parts} models; temperature {self.temperature:g}, keeps the best {self.keep:.0%} by default"

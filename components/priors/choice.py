"""Which distribution codes are drawn from. Standard library only: reading a config imports no torch."""

from dataclasses import dataclass

from components.config import require


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What is done to a prior's logits before a code is drawn, in this order: guidance, temperature, top k, top p."""

    temperature: float = 1.0
    """Divides the logits; 1 draws from the distribution as it was fitted."""
    top_k: int = 0
    """Codes among which one is drawn, the likeliest; 0: all. Codes as likely as the last of them stay."""
    top_p: float = 1.0
    """The likeliest codes that together have this probability are drawn from (Holtzman et al. 2020); 1: all."""
    guidance: float = 1.0
    """Logits are those without a class plus `guidance` times what the class adds (Ho and Salimans 2022): 1 as fitted,
    above 1 further into the class. Anything but 1 needs a prior fitted with label_dropout."""

    def __post_init__(self) -> None:
        temperature = self.temperature
        require(temperature > 0, f"temperature must be above 0, got {temperature}: small ones give the likeliest codes")
        require(self.top_k >= 0, f"top_k must be at least 1, or 0 for all codes, got {self.top_k}")
        require(0 < self.top_p <= 1, f"top_p must lie in (0, 1], got {self.top_p}: 1 draws from all codes")
        require(0 <= self.guidance < float("inf"), f"guidance must be 0 or above, got {self.guidance}: 1 is none")


AS_FITTED = SamplingConfig()
"""Nothing is done: codes come from the distribution that was fitted."""

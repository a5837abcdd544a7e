"""The kinds of quantizer, by the names that the config uses. A new one has its own file and a line here."""

from collections.abc import Mapping
from types import MappingProxyType

from components.tokenizer.ema_quantizer import EMAQuantizer
from components.tokenizer.quantizer import Quantizer

QUANTIZERS: Mapping[str, type[Quantizer]] = MappingProxyType({"ema": EMAQuantizer})
"""By `quantizer` of VQVAEArchitecture, whose type lists the same names."""

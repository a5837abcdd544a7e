"""Settings of the code dataset."""

from dataclasses import dataclass
from typing import Literal

from components.config import Execution, require

CODES_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class CodesLayout:
    """How code maps are computed and laid out on disk."""

    rows_per_shard: int = 4096
    """Images per Parquet file: the unit of work, of retry and of resume."""
    batch_size: int = 64
    """Images per forward pass of the encoder. Another size rounds differently: vectors midway between two codes may
    get the other code."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the encoder's convolutions. bfloat16 is faster on GPUs and changes more codes, for the same reason: the
    tokenizer that is served computes in float32 and gives some images other codes, at an equal error. The facts of the
    dataset say how many (`float32_agreement`)."""

    def __post_init__(self) -> None:
        for name in ("rows_per_shard", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class CodesExecution(Execution):
    """How an encode job divides the snapshot."""

    rows_per_wave: int = 1 << 20
    """Images planned and recorded at a time (a wave): bounds the driver's memory. A multiple of rows_per_shard."""

    def __post_init__(self) -> None:
        require(self.rows_per_wave >= 1, f"rows_per_wave must be at least 1, got {self.rows_per_wave}")


@dataclass(frozen=True, kw_only=True)
class CodesConfig(CodesExecution, CodesLayout):
    """The section `codes`."""

    def __post_init__(self) -> None:
        CodesLayout.__post_init__(self)
        CodesExecution.__post_init__(self)
        require(
            self.rows_per_wave % self.rows_per_shard == 0,
            f"rows_per_wave must be a multiple of rows_per_shard={self.rows_per_shard}, got {self.rows_per_wave}",
        )

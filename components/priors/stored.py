"""A prior as files: how it is described, written and loaded."""

from dataclasses import dataclass
from pathlib import Path

from components.priors.conditioning import MapSpec
from components.priors.config import PriorArchitecture
from components.priors.model import Prior
from components.store import weights

_KIND = "prior"
_FORMAT_1_ARCHITECTURE = frozenset(
    {
        "hidden",
        "residual_hidden",
        "layers",
        "filter_size",
        "attention_layers",
        "attention_heads",
        "output_layers",
        "conditioning_layers",
        "label_dropout",
    }
)
_FORMAT_1_DROPPED = frozenset({"dropout", "recompute", "training"})


@dataclass(frozen=True, kw_only=True)
class PriorDescription:
    """Everything needed to build one level's prior and to feed it."""

    level: str
    """Name of the level whose codes it draws."""
    architecture: PriorArchitecture
    shape: tuple[int, int]
    """Height and width of its code map."""
    codebook_size: int
    classes: int
    above: tuple[MapSpec, ...]
    """Maps of the levels above, top first."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", weights.narrowed(self.architecture, PriorArchitecture))

    def build(self, *, dropout: float = 0.0, recompute: bool = False) -> Prior:
        """The prior, its weights not yet loaded; `dropout` and `recompute` matter in training alone."""
        return Prior(
            self.architecture,
            shape=self.shape,
            codebook_size=self.codebook_size,
            classes=self.classes,
            above=self.above,
            dropout=dropout,
            recompute=recompute,
        )


def pack_prior(model: Prior, description: PriorDescription) -> dict[str, bytes]:
    """Files by name that `load_prior` reads back; equal priors give equal bytes."""
    return weights.pack(_KIND, model, description)


def describe_prior(folder: Path) -> PriorDescription:
    """What the prior in `folder` is, without reading its weights; ValueError when there is none."""
    return weights.read_description(folder, _KIND, PriorDescription, _upgrade)


def load_prior(folder: Path) -> Prior:
    """The prior stored in `folder`, in eval mode; raises ValueError when there is none or it is broken."""
    return weights.load_weights(describe_prior(folder).build(), folder)


def _upgrade(record: weights.DescriptionRecord) -> weights.DescriptionRecord:
    """From a description of format 1."""
    return weights.upgrade_settings(record, architecture=_FORMAT_1_ARCHITECTURE, dropped=_FORMAT_1_DROPPED)

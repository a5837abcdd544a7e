"""A tokenizer as files: how it is described, written and loaded."""

from dataclasses import dataclass
from pathlib import Path

from components.store import weights
from components.tokenizer.config import VQVAEArchitecture
from components.tokenizer.model import Tokenizer

_KIND = "tokenizer"
_FORMAT_1_ARCHITECTURE = frozenset({"levels", "hidden", "residual_hidden", "residual_layers", "decay"})
_FORMAT_1_DROPPED = frozenset({"beta", "restart_below", "prefix_share", "training"})


@dataclass(frozen=True, kw_only=True)
class TokenizerDescription:
    """Everything needed to build a tokenizer and to feed it."""

    architecture: VQVAEArchitecture
    channels: int
    """1 for grayscale, 3 for RGB."""
    image_size: int
    """Side in pixels of the images it was fitted to."""

    def __post_init__(self) -> None:
        # A whole VQVAEConfig may be given: only its architecture is stored.
        object.__setattr__(self, "architecture", weights.narrowed(self.architecture, VQVAEArchitecture))

    def build(self) -> Tokenizer:
        """The tokenizer, its weights not yet loaded."""
        return Tokenizer(self.architecture, channels=self.channels)


def pack_tokenizer(model: Tokenizer, description: TokenizerDescription) -> dict[str, bytes]:
    """Files by name that `load_tokenizer` reads back; equal tokenizers give equal bytes."""
    return weights.pack(_KIND, model, description)


def describe_tokenizer(folder: Path) -> TokenizerDescription:
    """What the tokenizer in `folder` is, without reading its weights; ValueError when there is none."""
    return weights.read_description(folder, _KIND, TokenizerDescription, _upgrade)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer stored in `folder`, in eval mode; raises ValueError when there is none or it is broken."""
    return weights.load_weights(describe_tokenizer(folder).build(), folder)


def _upgrade(record: weights.DescriptionRecord) -> weights.DescriptionRecord:
    """From a description of format 1."""
    return weights.upgrade_settings(record, architecture=_FORMAT_1_ARCHITECTURE, dropped=_FORMAT_1_DROPPED)

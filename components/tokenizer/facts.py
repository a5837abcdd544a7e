"""Facts of the tokenizer's fit."""

from dataclasses import dataclass

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class TokenizerFacts(Facts):
    """Held-out figures of the committed weights."""

    reconstruction_error: float
    """Mean squared error, images in [-1, 1]."""
    psnr: float
    """Peak signal-to-noise ratio in dB."""
    best_update: int = 0
    """Update of the committed weights."""
    updates: int = 0
    """Updates made."""
    parameters: int = 0

    def headline(self) -> str:
        """Error and PSNR of reconstructions."""
        return f"held-out error {self.reconstruction_error:.4f}, PSNR {self.psnr:.1f} dB"

"""How closely the tokenizer reproduces held-out images."""

from components.evaluation.measures.kinds import GeneratorMeasure
from components.tokenizer.psnr import psnr

LARGEST_PIXEL = 255
"""Peak of 8-bit pixels."""

RECONSTRUCTION_PSNR = GeneratorMeasure(
    name="psnr",
    title="Reconstruction",
    meaning="Peak signal-to-noise ratio of held-out images after encoding and decoding: samples cannot be sharper. "
    "Higher is better.",
    value_format="{:.1f} dB",
    compute=lambda inputs: psnr(inputs.reconstructed, inputs.held_out.pixels, peak=LARGEST_PIXEL).item(),
    reference=lambda scores: f"The judge recognises {scores.reconstructed_accuracy:.1%} of the reconstructions",
)

"""The digits pipeline, shrunk: every step is there, none takes long."""

FITS = ("vqvae", "priors.top", "priors.bottom", "classifier", "judge")

OVERRIDES = (
    "images.augment.copies=2",
    *(
        f"{fit}.training.{setting}"
        for fit in FITS
        for setting in ("updates=30", "evaluate_every=15", "checkpoint_every=15")
    ),
    "evaluation.samples=40",
    "evaluation.cas_updates=0",
    "evaluation.shares=[1.0, 0.5]",
    "evaluation.keep=0.5",
    "gates.reconstruction_error=2",
    "gates.codebook_usage=0",
    "gates.nats_share=9",
    "gates.judge_accuracy=0",
    "gates.kept_accuracy=0",
)
"""Overrides of the preset `digits`."""

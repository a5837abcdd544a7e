"""The steps of VQ-VAE-2, one folder per step, and what they share."""

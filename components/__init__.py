"""The steps of VQ-VAE-2, one folder a step, and what they share."""

"""The DAG of VQ-VAE-2 and how a person drives it."""

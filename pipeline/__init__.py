"""The DAG of VQ-VAE-2 and the commands that drive it."""

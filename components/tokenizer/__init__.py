"""The tokenizer: a hierarchical VQ-VAE that turns images into code maps and back (stage 1, Algorithm 1)."""

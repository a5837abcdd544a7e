"""The generator: tokenizer, priors and classifier together, from class and seed to images."""

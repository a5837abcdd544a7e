"""Stage 2: one gated PixelCNN prior a level over its code map (Algorithm 2), and the exact sampler that reads it."""

"""Stage 2 (Algorithm 2): one gated PixelCNN prior per level, over its code maps, and the exact sampler for it."""

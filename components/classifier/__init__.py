"""A small residual classifier: one rejects samples (section 3.3), another, seeded differently, judges them."""

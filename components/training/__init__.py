"""How every model is fitted: one loop, run on Ray Train or in this process."""

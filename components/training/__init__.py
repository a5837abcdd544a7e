"""How every model is fitted: one loop, and one way to run it on Ray Train."""

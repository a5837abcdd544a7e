"""The paper's own figures (replaced by the real file)."""

PUBLISHED: tuple = ()

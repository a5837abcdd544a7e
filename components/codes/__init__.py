"""Algorithm 2, lines 1-6: the code maps of every image, as Parquet shards."""

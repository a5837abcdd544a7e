"""Algorithm 2, lines 1-7: the code maps of every image, as Parquet shards."""

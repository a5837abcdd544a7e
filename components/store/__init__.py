"""The artifact store: objects, commits, weights, Parquet bytes, retries and leases."""

"""The Ray cluster: joined or started, and what it has to offer."""

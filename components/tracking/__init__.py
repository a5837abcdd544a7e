"""MLflow: runs, the model registry, the server. Alone knows MLflow, but for the two served models."""

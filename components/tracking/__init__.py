"""MLflow: runs, the model registry, the server. No other code imports MLflow, except the two served models.

The settings below are read when MLflow is imported: this file runs before any other file of the package imports it.
"""

import os

os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # those that may wait try again themselves (server.py)
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

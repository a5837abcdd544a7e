"""Imports what drivers import, once, in the server process that they are forked from."""

import dagster  # noqa: F401
import mlflow  # noqa: F401
import PIL.Image
import s3fs  # noqa: F401
import torch

import pipeline.cli
import pipeline.definitions
import pipeline.verbs.codes
import pipeline.verbs.run  # noqa: F401

torch.set_num_threads(1)
PIL.Image.init()  # its formats

"""Arguments of the verbs that use a model, and image files for them."""

import argparse

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def options(mlflow_state, tmp_path):
    """options(verb, **changes): the arguments of a verb as argparse gives them."""
    verbs = {
        "sample": {
            "model": "finished-generator",
            "classes": "",
            "count": 2,
            "seed": 0,
            "temperature": None,
            "like": None,
            "top_k": None,
            "top_p": None,
            "guidance": None,
            "keep": None,
            "out": str(tmp_path / "out"),
        },
        "reconstruct": {
            "model": "finished-tokenizer",
            "images": str(tmp_path / "in"),
            "out": str(tmp_path / "out" / "look.png"),
        },
    }
    return lambda verb, **changes: argparse.Namespace(
        **{**verbs[verb], "state": str(mlflow_state), "overrides": [], **changes}
    )


@pytest.fixture
def pictures(tmp_path):
    """A folder with two images, a broken one and a text."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/b.jpg")):
        y, x = np.mgrid[0:40, 0:24]
        Image.fromarray((x * 9 + y * number).astype(np.uint8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "cut.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:60])
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"

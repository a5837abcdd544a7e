"""`mlflow models serve` on a registered generator: an HTTP client requests images and receives PNGs."""

import base64
import io
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import mlflow
import numpy as np
import pytest
from PIL import Image

from components.generator.rejection import generate_samples
from components.priors.config import SamplingConfig
from tests.services.processes import Server, answers, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(finished, mlflow_state, tmp_path_factory) -> Iterator[str]:
    """URL of a server of the generator that the finished pipeline registered."""
    folder = tmp_path_factory.mktemp("served")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", "models:/finished-generator/1"]
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{mlflow_state}/mlflow.db",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONPATH": "",  # the project is not importable: the model contains its code
        "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
    }
    command += ["--env-manager", "local", "--port", str(port)]
    served = Server(command, log=folder / "serve.log", environment=environment)
    try:
        served.wait_until(lambda: answers(f"http://127.0.0.1:{port}/ping"), seconds=120)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        served.stop()


def request_samples(address: str, labels: list[str], **params: object) -> list[dict]:
    """The predictions that a client receives for these labels."""
    body = json.dumps({"inputs": [{"label": label} for label in labels], "params": params}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))["predictions"]


def test_a_client_receives_the_images_of_generate_samples(address, generator):
    predictions = request_samples(address, ["bee"], count=3, seed=7, temperature=0.9, keep=0.5)
    expected = generate_samples(
        generator, classes=[1], count=3, seed=7, sampling=SamplingConfig(temperature=0.9), keep=0.5
    ).pixels.numpy()[..., 0]
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each["png"])))) for each in predictions]
    assert [each["label"] for each in predictions] == ["bee"] * 3 and np.array_equal(np.stack(pictures), expected)


def test_a_wrong_request_is_answered_with_status_400(address):
    with pytest.raises(urllib.error.HTTPError) as caught:
        request_samples(address, ["wolf"])
    assert caught.value.code == 400 and "label must be a class" in caught.value.read().decode()


def test_the_signature_types_every_parameter(finished, mlflow_state):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_state}/mlflow.db")
        signatures = {
            kind: mlflow.models.get_model_info(f"models:/finished-{kind}/1").signature
            for kind in ("tokenizer", "generator")
        }
    typed = {parameter.name: parameter.dtype.name for parameter in signatures["generator"].params.params}
    whole, real = ("count", "seed", "top_k"), ("keep", "temperature", "top_p", "guidance")
    assert typed == dict.fromkeys(whole, "long") | dict.fromkeys(real, "double")
    assert [parameter.name for parameter in signatures["tokenizer"].params.params] == ["reconstruct"]

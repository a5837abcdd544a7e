"""The registered generator, called the way MLflow calls it."""

import base64
import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import components
from components import serving
from components.generator.config import GeneratorConfig
from components.generator.rejection import generate_samples
from components.priors.config import SamplingConfig


@pytest.fixture(scope="module")
def served_generator(generator_folders):
    from components.generator.served import ServedGenerator

    model = ServedGenerator()
    model.load_context(SimpleNamespace(artifacts={name: str(folder) for name, folder in generator_folders.items()}))
    return model


def test_the_served_generator_answers_with_the_samples_of_generate(generator, served_generator):
    options, sampling = {"count": 2, "seed": 5, "keep": 0.5}, {"temperature": 0.9, "top_k": 5, "top_p": 0.9}
    answers = served_generator.predict(None, [{"label": "cat"}, {"label": "0"}], options | sampling)
    expected = generate_samples(generator, classes=[2, 0], **options, sampling=SamplingConfig(**sampling))
    assert [answer.label for answer in answers] == ["cat", "cat", "0", "0"]
    for answer, pixels in zip(answers, expected.pixels, strict=True):
        assert np.abs(decode_base64_png(answer.png).astype(int) - pixels[:, :, 0].numpy()).max() <= 1
    assert [answer.probability for answer in answers] == pytest.approx(expected.probability.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("label", "params", "message"),
    [
        ("dog", {}, r"label must be a class \(ant, bee, cat\) or its number 0 \.\. 2, got 'dog'"),
        ("3", {}, "label must be a class"),
        (None, {}, "got None"),
        ("ant", {"temprature": 0.9}, "got 'temprature': correct its spelling"),
        ("ant", {"count": True}, "'count' must be of type int"),
        ("ant", {"count": 5000}, "at most 4096 draws"),
        ("ant", {"keep": 2.0}, r"keep must lie in \(0, 1\]"),
        ("ant", {"top_p": 0.0}, r"top_p must lie in \(0, 1\]"),
        ("ant", {"guidance": 2.0}, "needs a prior that knows 'no class'"),
    ],
)
def test_bad_requests_are_the_clients_error(served_generator, label, params, message):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=message) as caught:
        served_generator.predict(None, [{"label": label}], params)
    assert caught.value.get_http_status_code() == 400


def test_a_generator_is_packed_with_its_folders_and_defaults(generator_folders):
    from components.generator import served

    folder, config = generator_folders["tokenizer"].parent, GeneratorConfig(top_p=0.5, keep=0.25)
    package = served.generator_package(folder, config)
    assert package.folders == generator_folders and package.code == Path(served.__file__)
    assert package.example == [{"label": "ant"}] and package.requirements == serving.served_requirements()
    defaults = {"count": 1, "seed": 0, "keep": 0.25, "temperature": 1.0, "top_k": 0, "top_p": 0.5, "guidance": 1.0}
    assert package.parameters == defaults


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
@pytest.mark.usefixtures("tracking")
def test_a_logged_generator_loads_without_pickle(generator_folders, tmp_path):
    import mlflow

    from components.generator.served import generator_package

    package = generator_package(generator_folders["tokenizer"].parent, GeneratorConfig())
    experiment = mlflow.create_experiment("round trip", artifact_location=(tmp_path / "artifacts").as_uri())
    code = Path(components.__file__).parent
    shutil.copytree(code, tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__"))
    with mlflow.start_run(experiment_id=experiment):
        info = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(package.code),
            artifacts={name: str(folder) for name, folder in package.folders.items()},
            code_paths=[str(tmp_path / "components")],
            input_example=(package.example, dict(package.parameters)),
            pip_requirements=list(package.requirements),
        )
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    answers = loaded.predict([{"label": "bee"}], params={"count": 3})
    assert [decode_base64_png(answer.png).shape for answer in answers] == [(16, 16)] * 3
    assert not list((tmp_path / "artifacts").rglob("*.pkl"))
    with pytest.raises(mlflow.MlflowException, match="Can not safely convert"):
        loaded.predict([{"label": "bee"}], params={"count": 1.5})


def decode_base64_png(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
